#include "log.h"

#include "NvInferVersion.h"

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>

namespace pointrend {
namespace {

std::atomic<nvinfer1::ILoggerFinder*> finder_in_use{nullptr};

// TensorRT-RTX numbers its versions from 1, with the classes of TensorRT 11.
constexpr int32_t kMajorOfRtx = 11;

// Major version of the library that owns the finder, 0 where it does not say.
int32_t major_version_of(nvinfer1::ILoggerFinder const* finder) noexcept {
    void const* table = nullptr;
    std::memcpy(&table, finder, sizeof table); // the object begins with its table of functions
    Dl_info owner{};
    if (dladdr(table, &owner) == 0 || owner.dli_fname == nullptr) {
        return 0;
    }
    void* const library = dlopen(owner.dli_fname, RTLD_NOLOAD | RTLD_LAZY);
    if (library == nullptr) {
        return 0;
    }
    int32_t major = 0;
    if (void* const found = dlsym(library, "getInferLibVersion")) {
        major = reinterpret_cast<int32_t (*)()>(found)() / 10000;
    }
    dlclose(library);
    return std::strstr(owner.dli_fname, "tensorrt_rtx") != nullptr ? kMajorOfRtx : major;
}

} // namespace

void set_logger_finder(nvinfer1::ILoggerFinder* finder) noexcept {
    bool const same = finder != nullptr && major_version_of(finder) == NV_TENSORRT_MAJOR;
    finder_in_use = same ? finder : nullptr;
}

void log_error(char const* op, char const* message) noexcept {
    nvinfer1::ILoggerFinder* const finder = finder_in_use;
    nvinfer1::ILogger* const logger = finder != nullptr ? finder->findLogger() : nullptr;
    if (logger == nullptr) {
        return;
    }
    char text[256];
    std::snprintf(text, sizeof text, "%s: %s", op, message);
    logger->log(nvinfer1::ILogger::Severity::kERROR, text);
}

} // namespace pointrend
