// How quantised weights lie in memory.
//
// A matrix [N, K] is cut into tiles of 16 rows (N is padded with zeros), a tile into groups of 32 columns. A group of a
// tile is one block, and the blocks of a tile follow each other, so that a tile is read front to back:
//
//     16 scales (fp16) | values
//
// int4: 4 lines of 64 bytes. Byte 4 r + i of line v holds columns 4 v + i (low nibble) and 16 + 4 v + i (high nibble) of
//       row r, as q + 8. Example: column 22 = 16 + 4 * 1 + 2 of row 3 is the high nibble of byte 14 of line 1.
// int8: 8 lines of 64 bytes. Byte 4 r + i of line v holds column 4 v + i of row r, as q + 128.
//
// A weight is q * scale. The offset makes values unsigned, which the dot-product instructions want; the kernels take
// offset * sum(activations) away again, exactly, in integers.
#pragma once
#include <cstddef>
#include <cstdint>

namespace qwen3vl {

constexpr int kTile = 16, kGroup = 32, kLine = 64;

constexpr int64_t tiles_of(int64_t n) { return (n + kTile - 1) / kTile; }
constexpr size_t block_bytes(int bits) { return kTile * 2 + kTile * kGroup * bits / 8; }
constexpr int offset_of(int bits) { return 1 << (bits - 1); }

// Activations of M tokens, quantised: value = q * scale; `shift` is the group's sum of q times the weights' offset.
struct Activations {
  const int8_t* q;        // [M, K]
  const float* scale;     // [M, G]
  const int32_t* shift;   // [M, G]
  int64_t k, groups;
};

}  // namespace qwen3vl
