// The experts' products on Hopper: the tiles of each segment, found on the device from sums over the segments.
//
// Rows: A's tiles begin at a segment's first row, and may read rows of the next one; the epilogue stores none of theirs. Whole blocks of 64
// rows go out by the copy engine, the segment's last ones from registers. Votes: K is a segment's columns, whose pads are zeros.
#ifndef TV_KERNELS_GEMM_HOPPER_GROUPED_CUH
#define TV_KERNELS_GEMM_HOPPER_GROUPED_CUH

#include "kernels/cuda/gemm_hopper_scale.cuh"
#include "kernels/cuda/gemm_hopper_vote.cuh"
#include "kernels/cuda/moe_segments.cuh"

#define TV_HOPPER_SEGMENTS_MAX 512

// Clusters' tiles of a segment's rows.
struct tv_hopper_row_tiles {
    const tv_segment *segments;
    int tiles_n;
    __device__ int operator()(int s) const
    {
        int per = TV_HOPPER_CLUSTER * TV_HOPPER_ROWS;
        return (int)((segments[s].rows + per - 1) / per) * tiles_n;
    }
};

struct tv_hopper_rows_args {
    CUtensorMap y; // boxes of gemm_hopper_scale.cuh
    int boxed;
    tv_moe_gemm_args gemm;
};

struct tv_hopper_rows_job {
    static constexpr int table = TV_HOPPER_SEGMENTS_MAX;
    CUtensorMap a, a_lo, b;
    int steps, tiles_n;
    tv_hopper_rows_args args;

    __device__ void fill(int32_t *table) const
    {
        tv_hopper_row_tiles tiles = {args.gemm.segments, tiles_n};
        tv_moe_segments_sum(table, (int)args.gemm.segment_count, tiles);
    }
    __device__ int items(const int32_t *table) const { return table[args.gemm.segment_count - 1]; }
    __device__ tv_hopper_item item_at(int t, const int32_t *table) const
    {
        tv_moe_piece piece = tv_moe_piece_at(table, (int)args.gemm.segment_count, t);
        const tv_segment &s = args.gemm.segments[piece.segment];
        int per = TV_HOPPER_CLUSTER * TV_HOPPER_ROWS;
        tv_hopper_tile tile = tv_hopper_tile_at(piece.index, (int)((s.rows + per - 1) / per), tiles_n);
        int row = (int)s.first + tile.m * per, col = tile.n * TV_HOPPER_WIDTH;
        return {row, s.expert * (int)args.gemm.n + col, row, col, (int)(s.first + s.rows), 0, steps, piece.segment};
    }
};

// v = (float)acc (scale[i] 2^exponent)
struct tv_hopper_rows {
    typedef tv_hopper_rows_args args;
    static constexpr bool two = false, raw = false;
    static constexpr int stages = 4, scratch_bytes = TV_HOPPER_BOXES * TV_HOPPER_BOX_FLOATS * (int)sizeof(float);

    const args &a;
    float scale[TV_HOPPER_BLOCKS][2]; // of the thread's two rows
    int row_end;

    __device__ explicit tv_hopper_rows(const args &args) : a(args), row_end(0) {}
    __device__ void turn(const tv_hopper_item &item) { row_end = item.row_end; }

    __device__ void begin(int m, const tv_hopper_place &p)
    {
#pragma unroll
        for (int h = 0; h < 2; h++)
            scale[m][h] = p.row + 8 * h < row_end ? a.gemm.scale[p.row + 8 * h] : 0.0f;
    }

    __device__ void end(const tv_hopper_place &p) const
    {
        if (p.thread == 0)
            tv_copy_out_wait();
    }

    __device__ void store(int m, const tv_hopper_place &p, const int32_t (&values)[TV_HOPPER_SUMS]) const
    {
        float unit = tv_exp2i(a.gemm.exponent), factor[2] = {scale[m][0] * unit, scale[m][1] * unit};
        int first = (int)p.row - (p.thread / TV_WARP * 16 + p.thread % TV_WARP / 4);
        if (a.boxed && first + TV_HOPPER_BOX_ROWS <= row_end)
            store_boxes(p, first, factor, values);
        else
            store_pairs(p, factor, values);
    }

    __device__ void store_boxes(const tv_hopper_place &p, int first, const float factor[2],
                                const int32_t (&values)[TV_HOPPER_SUMS]) const
    {
        int lane = p.thread % TV_WARP, row = p.thread / TV_WARP * 16 + lane / 4, twist = (lane % 4 / 2) ^ (lane / 4);
        float *box = (float *)p.scratch + row * TV_HOPPER_BOX_COLS + lane % 2 * 2;
        if (p.thread == 0)
            tv_copy_out_wait();
        tv_named_sync(1 + p.group, TV_HOPPER_WARPGROUP);
#pragma unroll
        for (int i = 0; i < TV_HOPPER_SUMS / 2; i++) {
            int j = i / 2, h = i % 2;
            float2 *at = (float2 *)(box + j / 4 * TV_HOPPER_BOX_FLOATS + h * 8 * TV_HOPPER_BOX_COLS +
                                    (((j % 4 * 2) ^ twist) << 2));
            *at = make_float2((float)values[2 * i] * factor[h], (float)values[2 * i + 1] * factor[h]);
        }
        tv_copy_out_fence();
        tv_named_sync(1 + p.group, TV_HOPPER_WARPGROUP);
        if (p.thread != 0)
            return;
        for (int i = 0; i < TV_HOPPER_BOXES; i++)
            tv_copy_box_out(&a.y, (float *)p.scratch + i * TV_HOPPER_BOX_FLOATS, (int)p.col + i * TV_HOPPER_BOX_COLS,
                            first);
        tv_copy_out_commit();
    }

    __device__ void store_pairs(const tv_hopper_place &p, const float factor[2],
                                const int32_t (&values)[TV_HOPPER_SUMS]) const
    {
#pragma unroll
        for (int i = 0; i < TV_HOPPER_SUMS; i++) {
            int h = i / 2 % 2;
            int64_t row = p.row + 8 * h, col = p.col + i / 4 * 8 + p.thread % 4 * 2 + i % 2;
            if (row < row_end && col < a.gemm.n)
                a.gemm.y[row * a.gemm.n + col] = (float)values[i] * factor[h];
        }
    }
};

struct tv_hopper_segment_args {
    tv_moe_vote_args vote;
};

// Clusters' tiles of a segment's votes: all of its expert's, or none.
struct tv_hopper_vote_tiles {
    const tv_segment *segments;
    int tiles;
    __device__ int operator()(int s) const { return segments[s].tokens > 0 ? tiles : 0; }
};

// A run of segments of different experts.
struct tv_hopper_segment_job {
    static constexpr int table = TV_HOPPER_SEGMENTS_MAX;
    CUtensorMap a, a_lo, b;
    int tiles_m, tiles_n, first, count;
    tv_hopper_segment_args args;

    __device__ void fill(int32_t *table) const
    {
        tv_hopper_vote_tiles tiles = {args.vote.segments + first, tiles_m * tiles_n};
        tv_moe_segments_sum(table, count, tiles);
    }
    __device__ int items(const int32_t *table) const { return table[count - 1]; }
    __device__ tv_hopper_item item_at(int t, const int32_t *table) const
    {
        tv_moe_piece piece = tv_moe_piece_at(table, count, t);
        const tv_segment &s = args.vote.segments[first + piece.segment];
        tv_hopper_tile tile = tv_hopper_tile_at(piece.index, tiles_m, tiles_n);
        int row = tile.m * TV_HOPPER_CLUSTER * TV_HOPPER_ROWS, col = tile.n * TV_HOPPER_WIDTH;
        int steps = (int)((s.rows + TV_HOPPER_STEP - 1) / TV_HOPPER_STEP);
        return {row, col, row, col, INT32_MAX, (int)(s.padded / TV_HOPPER_STEP), steps, first + piece.segment};
    }
};
static_assert(TV_SEGMENT_PAD % TV_HOPPER_STEP == 0, "a segment's columns are whole steps");

// The vote of one level on the segment's expert.
template <int BITS> struct tv_hopper_segment_vote {
    typedef tv_hopper_segment_args args;
    typedef tv_hopper_vote<BITS, false> plain;
    static constexpr bool two = false, raw = false;
    static constexpr int stages = plain::stages, scratch_bytes = plain::scratch_bytes;

    const tv_moe_vote_args &all;
    tv_gemm_vote_args own; // the segment's
    plain vote;

    __device__ explicit tv_hopper_segment_vote(const args &args) : all(args.vote), vote(own)
    {
        own = {};
        own.n = all.n, own.k = all.k, own.rule = all.rule;
    }
    __device__ void turn(const tv_hopper_item &item)
    {
        const tv_segment &s = all.segments[item.segment];
        own.tokens = s.tokens;
        own.g_sumsq = all.g_sumsq + item.segment * all.n;
        own.x_sumsq = all.x_sumsq + item.segment * all.k;
        own.votes = (char *)all.votes + s.expert * all.n * all.k * (BITS / 8);
    }
    __device__ void begin(int m, const tv_hopper_place &p) { vote.begin(m, p); }
    __device__ void end(const tv_hopper_place &) {}
    __device__ void store(int m, const tv_hopper_place &p, const int32_t (&sums)[TV_HOPPER_SUMS]) const
    {
        vote.store(m, p, sums);
    }
};

#endif
