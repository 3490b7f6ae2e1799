// Upsampling with what follows it against plain loops.
#include "buffers.h"
#include "check_more_kernels.h"
#include "pointrend_plugins.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>

namespace {

using namespace checks;

// The upsampled value of a cell, in the definition's terms.
double upsampled(float const* plane, int h, int w, int scale, int row, int column) {
    double const y = std::max((row + 0.5) / scale - 0.5, 0.0);
    double const x = std::max((column + 0.5) / scale - 0.5, 0.0);
    int const top = static_cast<int>(y);
    int const left = static_cast<int>(x);
    int const bottom = std::min(top + 1, h - 1);
    int const right = std::min(left + 1, w - 1);
    double const above = plane[top * w + left] * (left + 1 - x) + plane[top * w + right] * (x - left);
    double const below = plane[bottom * w + left] * (left + 1 - x) + plane[bottom * w + right] * (x - left);
    return above * (top + 1 - y) + below * (y - top);
}

// Whole numbers, as floats or as halves, of which sums are exact.
struct Logits {
    explicit Logits(size_t count) : values(buffer<float>(count)), halves(buffer<uint16_t>(count)) {
        for (size_t i = 0; i < count; ++i) {
            values[i] = std::floor(random(-4.0F, 5.0F));
            _Float16 const half = static_cast<_Float16>(values[i]);
            std::copy_n(reinterpret_cast<uint16_t const*>(&half), 1, &halves[i]);
        }
    }

    void const* as(int type) const {
        return type == POINTREND_FLOAT32 ? static_cast<void const*>(values.get()) : halves.get();
    }

    std::unique_ptr<float[]> values;
    std::unique_ptr<uint16_t[]> halves;
};

bool two_best_agree(int type, int n, int c, int h, int w, int scale) {
    Logits const logits(static_cast<size_t>(n) * c * h * w);
    size_t const cells = static_cast<size_t>(h) * w * scale * scale;
    auto const uncertainty = buffer<float>(n * cells);
    auto const labels = buffer<int32_t>(n * cells);
    if (pointrend_upsample_two_best(logits.as(type), type, uncertainty.get(), labels.get(), n, c, h, w, scale,
                                    nullptr) != 0) {
        return false;
    }
    for (size_t i = 0; i < n * cells; ++i) {
        int const row = static_cast<int>(i % cells) / (w * scale);
        int const column = static_cast<int>(i % cells) % (w * scale);
        double best = -INFINITY;
        double second = -INFINITY;
        int label = 0;
        for (int each = 0; each < c; ++each) {
            float const* const plane = logits.values.get() + (i / cells * c + each) * h * w;
            double const value = upsampled(plane, h, w, scale, row, column);
            label = value > best ? each : label;
            second = std::max(second, std::min(best, value));
            best = std::max(best, value);
        }
        if (uncertainty[i] != second - best || labels[i] != label) {
            std::printf("upsampling (%d, %d, %d, %d) by %d differs at %zu\n", n, c, h, w, scale, i);
            return false;
        }
    }
    auto const alone = buffer<float>(n * cells);
    return pointrend_upsample_two_best(logits.as(type), type, alone.get(), nullptr, n, c, h, w, scale, nullptr) == 0 &&
           std::equal(alone.get(), alone.get() + n * cells, uncertainty.get());
}

// Every third cell is a point, from the last to the first.
size_t points_of(size_t cells) { return (cells + 2) / 3; }
int64_t cell_of(size_t point, size_t cells) { return static_cast<int64_t>(cells - 1 - 3 * point); }

bool refining_agrees(int type, int n, int c, int h, int w, int scale) {
    size_t const cells = static_cast<size_t>(h) * w * scale * scale;
    size_t const k = points_of(cells);
    Logits const logits(static_cast<size_t>(n) * c * h * w);
    Logits const points(n * c * k);
    auto const indices = buffer<int64_t>(n * k);
    auto const before = buffer<int32_t>(n * cells);
    std::fill_n(before.get(), n * cells, -5);
    for (size_t i = 0; i < n * k; ++i) {
        indices[i] = cell_of(i % k, cells);
    }
    auto const refined = buffer<float>(n * c * cells);
    auto const labels = buffer<int32_t>(n * cells);
    int const count = static_cast<int>(k);
    if (pointrend_refine_logits(logits.as(type), type, indices.get(), points.as(type), type, refined.get(), n, c, h, w,
                                scale, count, nullptr) != 0 ||
        pointrend_refine_labels(before.get(), indices.get(), points.as(type), type, labels.get(), n, c,
                                static_cast<int>(cells), count, nullptr) != 0) {
        return false;
    }
    for (size_t i = 0; i < n * cells; ++i) {
        size_t const cell = i % cells;
        size_t const image = i / cells;
        bool const is_point = (cells - 1 - cell) % 3 == 0;
        size_t const point = (cells - 1 - cell) / 3;
        int label = is_point ? 0 : -5;
        for (int each = 0; each < c; ++each) {
            size_t const map = image * c + each;
            float const put = is_point ? points.values[map * k + point] : 0.0F;
            label = is_point && put > points.values[(image * c + label) * k + point] ? each : label;
            double const wanted = is_point ? put
                                           : upsampled(logits.values.get() + map * h * w, h, w, scale,
                                                       static_cast<int>(cell) / (w * scale),
                                                       static_cast<int>(cell) % (w * scale));
            if (refined[map * cells + cell] != wanted) {
                std::printf("refining (%d, %d, %d, %d) by %d differs at %zu\n", n, c, h, w, scale, i);
                return false;
            }
        }
        if (labels[i] != label) {
            std::printf("labels (%d, %d, %d, %d) by %d differ at %zu\n", n, c, h, w, scale, i);
            return false;
        }
    }
    return true;
}

} // namespace

bool upsampling_agrees() {
    bool good = true;
    for (int type : {POINTREND_FLOAT32, POINTREND_FLOAT16}) {
        good = two_best_agree(type, 1, 5, 9, 34, 2) && good;
        for (int scale : {2, 4, 16}) {
            good = two_best_agree(type, 2, 3, 5, 7, scale) && good;
            good = two_best_agree(type, 1, 2, 1, 1, scale) && good;
            good = refining_agrees(type, 2, 3, 5, 7, scale) && good;
            good = refining_agrees(type, 1, 1, 1, 1, scale) && good;
            good = refining_agrees(type, 1, 1, 1, 33, scale) && good;
        }
    }
    return good;
}
