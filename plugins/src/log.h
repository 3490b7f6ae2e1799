// Messages to the logger of the TensorRT that loaded the library.
#pragma once

#include "NvInferRuntime.h"

namespace pointrend {

// Keeps the finder only where its library has the major version this was compiled for: the layout of the
// logger's classes changed in 11, and a call through another layout ends the process. Without one nothing is logged.
void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept;

// Logs an error, "<op>: <message>". Does nothing where no logger is known.
void log_error(char const* op, char const* message) noexcept;

} // namespace pointrend
