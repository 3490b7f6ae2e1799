#include "check_more_kernels.h"

#include "buffers.h"
#include "pointrend_plugins.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <numeric>
#include <vector>

namespace {

using namespace checks;

struct Corners {
    float x1, y1, x2, y2;
};

Corners random_box(float extent, float largest) {
    float const x = random(-0.2F * extent, 1.2F * extent);
    float const y = random(-0.2F * extent, 1.2F * extent);
    return {x, y, x + random(0.0F, largest), y + random(0.0F, largest)};
}

// A bilinear value, of the edge's up to a cell outside, else 0.
double value_at(float const* plane, int h, int w, double x, double y) {
    if (x < -1.0 || y < -1.0 || x > w || y > h) {
        return 0.0;
    }
    x = std::clamp(x, 0.0, w - 1.0);
    y = std::clamp(y, 0.0, h - 1.0);
    int const left = static_cast<int>(x);
    int const top = static_cast<int>(y);
    double sum = 0.0;
    for (int row = top; row <= std::min(top + 1, h - 1); ++row) {
        for (int column = left; column <= std::min(left + 1, w - 1); ++column) {
            sum += (1.0 - std::fabs(x - column)) * (1.0 - std::fabs(y - row)) * plane[row * w + column];
        }
    }
    return sum;
}

double pooled_at(float const* plane, int h, int w, Corners const& box, double scale, int side, int bin) {
    double const x = box.x1 * scale - 0.5;
    double const y = box.y1 * scale - 0.5;
    double const across = (box.x2 - box.x1) * scale / side;
    double const down = (box.y2 - box.y1) * scale / side;
    int const columns = static_cast<int>(std::ceil(across));
    int const rows = static_cast<int>(std::ceil(down));
    double sum = 0.0;
    for (int row = 0; row < rows; ++row) {
        for (int column = 0; column < columns; ++column) {
            sum += value_at(plane, h, w, x + (bin % side + (column + 0.5) / columns) * across,
                            y + (bin / side + (row + 0.5) / rows) * down);
        }
    }
    return rows * columns > 0 ? sum / (rows * columns) : 0.0;
}

// Two pictures, maps of odd sizes; what lies beside the last level is not read.
bool pools(int channels, int side, int levels, float largest) {
    constexpr int kPictures = 2;
    constexpr int kBoxes = 6;
    int32_t const heights[] = {23, 11, 5, 1};
    int32_t const widths[] = {17, 9, 3, 2};
    std::unique_ptr<float[]> maps[4];
    void const* pointers[4] = {};
    for (int i = 0; i < levels; ++i) {
        size_t const cells = static_cast<size_t>(kPictures) * channels * heights[i] * widths[i];
        maps[i] = buffer<float>(cells);
        std::generate_n(maps[i].get(), cells, [] { return random(-1.0F, 1.0F); });
        pointers[i] = maps[i].get();
    }
    auto const boxes = buffer<Corners>(kPictures * kBoxes);
    std::generate_n(boxes.get(), kPictures * kBoxes, [=] { return random_box(70.0F, largest); });
    size_t const square = static_cast<size_t>(side) * side;
    auto const out = buffer<float>(kPictures * kBoxes * channels * square);
    if (pointrend_roi_align(&boxes[0].x1, pointers, POINTREND_FLOAT32, out.get(), kPictures, kBoxes, channels, heights,
                            widths, 2, levels, side, 0, nullptr) != 0) {
        return false;
    }
    for (size_t i = 0; i < kPictures * kBoxes * channels * square; ++i) {
        size_t const box = i / (channels * square);
        Corners const& at = boxes[box];
        double const size = std::sqrt(static_cast<double>(at.x2 - at.x1) * (at.y2 - at.y1)) / 224.0;
        int const level = std::clamp(static_cast<int>(std::floor(4.0 + std::log2(size))), 2, 1 + levels) - 2;
        size_t const plane = box / kBoxes * channels + i / square % channels;
        int const h = heights[level], w = widths[level];
        double const expected = pooled_at(maps[level].get() + plane * h * w, h, w, at, std::ldexp(1.0, -2 - level),
                                          side, static_cast<int>(i % square));
        if (!(std::fabs(out[i] - expected) <= 1e-5)) {
            std::printf("roi_align, %d channels, side %d, %d levels, at %zu: %g, not %g\n", channels, side, levels, i,
                        out[i], expected);
            return false;
        }
    }
    return true;
}

// A bilinear value of channel `at` of a map (h, w, channels) whose cells outside are 0, at x and y in [0, 1].
double row_at(float const* map, int h, int w, int channels, int at, double x, double y) {
    x = x * w - 0.5;
    y = y * h - 0.5;
    double sum = 0.0;
    for (int row = 0; row < h; ++row) {
        for (int column = 0; column < w; ++column) {
            double const weight = std::max(0.0, 1.0 - std::fabs(x - column)) * std::max(0.0, 1.0 - std::fabs(y - row));
            sum += weight * map[(row * w + column) * channels + at];
        }
    }
    return sum;
}

// Two pictures of two RoIs each, whose boxes lie partly beside the map.
bool samples_rois(int hidden, int channels, int points) {
    constexpr int kPictures = 2;
    constexpr int kRois = 4;
    constexpr int kHeight = 5, kWidth = 3, kSide = 2;
    auto const filled = [](size_t count, float low, float high) {
        auto values = buffer<float>(count);
        std::generate_n(values.get(), count, [=] { return random(low, high); });
        return values;
    };
    auto const table = filled(static_cast<size_t>(kPictures) * kHeight * kWidth * hidden, -1.0F, 1.0F);
    auto const cells = filled(static_cast<size_t>(kRois) * kSide * kSide * channels, -1.0F, 1.0F);
    auto const bias = filled(static_cast<size_t>(hidden), -0.5F, 0.5F);
    auto const boxes = filled(kRois * 4, -0.5F, 1.5F);
    auto const at = filled(static_cast<size_t>(kRois) * points * 2, 0.0F, 1.0F);
    size_t const count = static_cast<size_t>(kRois) * points * channels;
    auto const out = buffer<float>(count);
    if (pointrend_sample_rois(table.get(), cells.get(), bias.get(), POINTREND_FLOAT32, boxes.get(), at.get(), out.get(),
                              kPictures, kHeight, kWidth, hidden, kRois, kSide, kSide, channels, points,
                              nullptr) != 0) {
        return false;
    }
    for (size_t i = 0; i < count; ++i) {
        int const channel = static_cast<int>(i % channels);
        size_t const point = i / channels;
        size_t const roi = point / points;
        float const* const box = boxes.get() + roi * 4;
        double const x = at[point * 2], y = at[point * 2 + 1];
        double expected = row_at(cells.get() + roi * kSide * kSide * channels, kSide, kSide, channels, channel, x, y);
        if (channel < hidden) {
            float const* const map = table.get() + roi / (kRois / kPictures) * kHeight * kWidth * hidden;
            double const on_map = row_at(map, kHeight, kWidth, hidden, channel, box[0] + x * (box[2] - box[0]),
                                         box[1] + y * (box[3] - box[1]));
            expected = std::max(0.0, expected + bias[channel] + on_map);
        }
        if (!(std::fabs(out[i] - expected) <= 1e-5)) {
            std::printf("sample_rois, %d of %d channels, %d points, at %zu: %g, not %g\n", hidden, channels, points, i,
                        out[i], expected);
            return false;
        }
    }
    return true;
}

bool drops(Corners const& a, Corners const& b, float threshold) {
    float const shared = std::max(0.0F, std::min(a.x2, b.x2) - std::max(a.x1, b.x1)) *
                         std::max(0.0F, std::min(a.y2, b.y2) - std::max(a.y1, b.y1));
    float const of_a = (a.x2 - a.x1) * (a.y2 - a.y1);
    float const of_b = (b.x2 - b.x1) * (b.y2 - b.y1);
    return shared / (of_a + of_b - shared) > threshold;
}

bool suppresses(int pictures, int groups, int l, int k, int different) {
    size_t const cells = static_cast<size_t>(pictures) * groups * l;
    auto const boxes = buffer<Corners>(cells);
    std::generate_n(boxes.get(), cells, [=] { return random_box(10.0F * std::sqrt(static_cast<float>(l)), 40.0F); });
    auto const scores = buffer<float>(cells);
    std::generate_n(scores.get(), cells, [=] { return std::floor(random(0.0F, 1.0F) * static_cast<float>(different)); });
    auto const indices = buffer<int64_t>(static_cast<size_t>(pictures) * k);
    auto const count = buffer<int64_t>(static_cast<size_t>(pictures));
    size_t const bytes = pointrend_nms_workspace(pictures, groups, l);
    Workspace const workspace = workspace_of(bytes);
    if (pointrend_nms(&boxes[0].x1, scores.get(), indices.get(), count.get(), pictures, groups, l, k, 0.4F, 0.5F,
                      workspace.get(), bytes, nullptr) != 0) {
        return false;
    }
    std::vector<int64_t> order(static_cast<size_t>(groups) * l);
    for (int picture = 0; picture < pictures; ++picture) {
        Corners const* const of_picture = boxes.get() + static_cast<size_t>(picture) * groups * l;
        float const* const scored = scores.get() + static_cast<size_t>(picture) * groups * l;
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [=](int64_t a, int64_t b) { return scored[a] > scored[b]; });
        std::vector<int64_t> kept;
        for (int64_t const i : order) {
            bool const dropped = std::any_of(kept.begin(), kept.end(), [=](int64_t j) {
                return i / l == j / l && drops(of_picture[j], of_picture[i], 0.4F);
            });
            if (scored[i] > 0.5F && !dropped) {
                kept.push_back(i);
            }
        }
        kept.resize(std::min<size_t>(kept.size(), static_cast<size_t>(k)));
        bool const counted = count[picture] == static_cast<int64_t>(kept.size());
        kept.resize(static_cast<size_t>(k), 0);
        if (!counted || !std::equal(kept.begin(), kept.end(), indices.get() + static_cast<size_t>(picture) * k)) {
            std::printf("nms (%d, %d, %d), k %d: picture %d differs\n", pictures, groups, l, k, picture);
            return false;
        }
    }
    return true;
}

} // namespace

bool pooling_agrees() {
    bool good = true;
    for (int const side : {1, 3, 7, 64}) {
        for (int const channels : {1, 5, 33}) {
            good = pools(channels, side, 4, 700.0F) && good;
        }
        good = pools(2, side, 1, 2000.0F) && good;
        good = pools(2, side, 2, 3.0F) && good;
    }
    return good;
}

bool sampling_of_rois_agrees() {
    bool good = true;
    for (int const points : {1, 31, 32, 70}) {
        for (int const more : {0, 1, 5, 8}) { // with 0 and 8 four channels are read at once
            good = samples_rois(1, 1 + more, points) && good;
            good = samples_rois(8, 8 + more, points) && good;
            good = samples_rois(256, 256 + more, points) && good;
        }
    }
    return good;
}

bool suppression_agrees() {
    bool good = true;
    for (int const l : {1, 2, 63, 65, 200}) {
        for (int const k : {1, l, 2 * l + 3}) {
            good = suppresses(2, 2, l, k, 4) && good;
            good = suppresses(1, 1, l, k, 1 << 20) && good;
        }
    }
    good = suppresses(1, 40, 9, 30, 2) && good;
    return suppresses(1, 1, 2100, 50, 1 << 20) && good; // sorted in the workspace
}
