// The kernels under the emulator against plain loops, in buffers of exactly their size: built with the
// address and undefined-behaviour sanitizers it finds what reads or writes beside them.
//
//   check_kernels           ends with 0 when everything agrees
//   check_kernels beyond    one cell short of what the sampler writes: the sanitizer has to stop it
#include "buffers.h"
#include "check_more_kernels.h"
#include "pointrend_plugins.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace {

using namespace checks;

double reference(float const* plane, int h, int w, float x, float y) {
    double const px = static_cast<double>(x) * w - 0.5;
    double const py = static_cast<double>(y) * h - 0.5;
    int const left = static_cast<int>(std::floor(px));
    int const top = static_cast<int>(std::floor(py));
    double sum = 0.0;
    for (int row = top; row <= top + 1; ++row) {
        for (int column = left; column <= left + 1; ++column) {
            if (row >= 0 && row < h && column >= 0 && column < w) {
                double const weight = (1.0 - std::fabs(px - column)) * (1.0 - std::fabs(py - row));
                sum += weight * plane[row * w + column];
            }
        }
    }
    return sum;
}

bool sampling_agrees(int n, int c, int h, int w, int p, size_t room_missing) {
    size_t const cells = static_cast<size_t>(n) * c * h * w;
    auto const features = buffer<float>(cells);
    std::generate_n(features.get(), cells, [] { return random(-1.0F, 1.0F); });
    auto const points = buffer<float>(static_cast<size_t>(n) * p * 2);
    std::generate_n(points.get(), static_cast<size_t>(n) * p * 2, [] { return random(-0.2F, 1.2F); });
    auto const out = buffer<float>(static_cast<size_t>(n) * c * p - room_missing);
    if (pointrend_sample(features.get(), POINTREND_FLOAT32, points.get(), out.get(), n, c, h, w, p, nullptr) != 0) {
        return false;
    }
    for (int i = 0; i < n * c * p; ++i) {
        int const image = i / (c * p);
        float const* const xy = points.get() + (static_cast<size_t>(image) * p + i % p) * 2;
        float const* const plane = features.get() + static_cast<size_t>(i / p) * h * w;
        double const expected = reference(plane, h, w, xy[0], xy[1]);
        if (!(std::fabs(out[i] - expected) <= 1e-5)) {
            std::printf("sample (%d, %d, %d, %d) at %d: %g, not %g\n", n, c, h, w, i, out[i], expected);
            return false;
        }
    }
    return true;
}

// Maps of ones, sampled in their middle; with the channels last they are filled up to a multiple of 8.
bool half_sampling_runs(int type, int c, int h, int w, int p) {
    size_t const channels = type == POINTREND_FLOAT16_HWC8 ? (static_cast<size_t>(c) + 7) / 8 * 8 : c;
    size_t const cells = channels * h * w;
    Workspace const features = workspace_of(cells * 2);
    std::fill_n(static_cast<uint16_t*>(features.get()), cells, uint16_t{0x3C00}); // 1.0
    auto const points = buffer<float>(static_cast<size_t>(p) * 2);
    std::fill_n(points.get(), static_cast<size_t>(p) * 2, 0.5F);
    auto const out = buffer<uint16_t>(static_cast<size_t>(c) * p);
    int const error = pointrend_sample(features.get(), type, points.get(), out.get(), 1, c, h, w, p, nullptr);
    return error == 0 && std::all_of(out.get(), out.get() + c * p, [](uint16_t v) { return v == 0x3C00; });
}

// Two maps at cells of a grid over them, in either layout; those with the channels last are of ones.
bool cells_agree(int fine_type, int coarse_type, int c, int d) {
    constexpr int n = 2, h = 5, w = 3, gh = 10, gw = 6, k = 33;
    bool const half = fine_type != POINTREND_FLOAT32;
    auto const maps = [=](int type, int channels) {
        size_t const width = type == POINTREND_FLOAT16_HWC8 ? (static_cast<size_t>(channels) + 7) / 8 * 8 : channels;
        size_t const count = n * width * h * w;
        Workspace map = workspace_of(count * (half ? 2 : 4));
        if (half) {
            std::fill_n(static_cast<uint16_t*>(map.get()), count, uint16_t{0x3C00}); // 1.0
        } else {
            std::generate_n(static_cast<float*>(map.get()), count, [] { return random(-1.0F, 1.0F); });
        }
        return map;
    };
    Workspace const fine = maps(fine_type, c);
    Workspace const coarse = maps(coarse_type, d);
    auto const indices = buffer<int64_t>(n * k);
    std::generate_n(indices.get(), n * k, [] { return static_cast<int64_t>(random(0.0F, 1.0F) * (gh * gw - 1)); });
    indices[0] = -1;
    indices[1] = gh * gw;
    int const channels = (c + d + 7) / 8 * 8;
    Workspace const out = workspace_of(static_cast<size_t>(n) * channels * k * (half ? 2 : 4));
    if (pointrend_sample_cells(fine.get(), fine_type, c, h, w, coarse.get(), coarse_type, d, h, w, indices.get(), gh, gw,
                               out.get(), n, k, nullptr) != 0) {
        return false;
    }
    for (int i = 0; i < n * channels * k; ++i) {
        int const image = i / (channels * k);
        int const channel = i / k % channels;
        int64_t const cell = indices[image * k + i % k];
        double wanted = 0.0;
        if (channel < c + d && cell >= 0 && cell < gh * gw) {
            float const x = (static_cast<float>(cell % gw) + 0.5F) / gw;
            float const y = (static_cast<float>(cell / gw) + 0.5F) / gh;
            size_t const plane = channel < c ? static_cast<size_t>(image) * c + channel
                                             : static_cast<size_t>(image) * d + channel - c;
            auto const* const map = static_cast<float const*>((channel < c ? fine : coarse).get());
            std::vector<float> const ones(h * w, 1.0F);
            wanted = reference(half ? ones.data() : map + plane * h * w, h, w, x, y);
        }
        double const found = half ? static_cast<double>(static_cast<_Float16 const*>(out.get())[i])
                                  : static_cast<double>(static_cast<float const*>(out.get())[i]);
        if (!(std::fabs(found - wanted) <= (half ? 1e-3 : 1e-5))) {
            std::printf("cells (%d, %d) at %d: %g, not %g\n", c, d, i, found, wanted);
            return false;
        }
    }
    return true;
}

bool selection_agrees(int n, int l, int k, int different) {
    size_t const cells = static_cast<size_t>(n) * l;
    auto const values = buffer<float>(cells);
    std::generate_n(values.get(), cells, [=] { return std::floor(random(0.0F, 1.0F) * static_cast<float>(different)); });
    values[cells / 2] = std::numeric_limits<float>::infinity();
    auto const out = buffer<int64_t>(static_cast<size_t>(n) * k);
    size_t const bytes = pointrend_uncertain_workspace(n, l);
    Workspace const workspace = workspace_of(bytes);
    if (pointrend_uncertain(values.get(), out.get(), n, l, k, workspace.get(), bytes, nullptr) != 0) {
        return false;
    }
    std::vector<int64_t> order(static_cast<size_t>(l));
    for (int row = 0; row < n; ++row) {
        float const* const of_row = values.get() + static_cast<size_t>(row) * l;
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [=](int64_t a, int64_t b) { return of_row[a] > of_row[b]; });
        std::sort(order.begin(), order.begin() + k);
        if (!std::equal(order.begin(), order.begin() + k, out.get() + static_cast<size_t>(row) * k)) {
            std::printf("uncertain (%d, %d), k %d: row %d differs\n", n, l, k, row);
            return false;
        }
    }
    return true;
}

} // namespace

int main(int count, char** arguments) {
    if (count > 1 && std::string(arguments[1]) == "beyond") {
        return sampling_agrees(1, 1, 4, 4, 8, 1) ? 0 : 1;
    }
    bool good = true;
    for (int c : {1, 16, 17}) {
        good = sampling_agrees(2, c, 9, 14, 130, 0) && good;
        good = sampling_agrees(1, c, 1, 1, 3, 0) && good;
        good = half_sampling_runs(POINTREND_FLOAT16, c, 5, 3, 129) && good;
        good = half_sampling_runs(POINTREND_FLOAT16_HWC8, c, 5, 3, 129) && good;
    }
    for (int c : {3, 16, 66}) {
        good = cells_agree(POINTREND_FLOAT32, POINTREND_FLOAT32, c, 2) && good;
        for (int fine : {POINTREND_FLOAT16, POINTREND_FLOAT16_HWC8}) {
            good = cells_agree(fine, POINTREND_FLOAT16, c, 5) && good;
            good = cells_agree(fine, POINTREND_FLOAT16_HWC8, c, 5) && good;
        }
    }
    for (int l : {1, 31, 1024, 1025, 9000}) {
        for (int k : {1, l / 2 + 1, l}) {
            good = selection_agrees(2, l, k, 3) && good;
            good = selection_agrees(1, l, k, 1 << 20) && good;
        }
    }
    good = sampling_of_rois_agrees() && good;
    good = pooling_agrees() && good;
    good = suppression_agrees() && good;
    good = upsampling_agrees() && good;
    std::puts(good ? "all agree" : "some differ");
    return good ? 0 : 1;
}
