// Epilogue of forward and grad-x on Hopper: v = (float)acc (scale[i] 2^exponent); y = v or y + v.
//
// 64 rows of a tile wait in shared memory for the copy engine, as four boxes of 32 columns, so that whole lines of y go out while the
// warpgroup is back at work. When accumulating, the engine also brings the old values to where the new ones then stand. An output that
// the engine does not take (rows of no multiple of 16 bytes) is stored from the registers.
#ifndef TV_KERNELS_GEMM_HOPPER_SCALE_CUH
#define TV_KERNELS_GEMM_HOPPER_SCALE_CUH

#include "kernels/cuda/gemm_hopper.cuh"

#define TV_HOPPER_BOX_COLS 32 // 128 bytes
#define TV_HOPPER_BOX_ROWS 64
#define TV_HOPPER_BOX_FLOATS (TV_HOPPER_BOX_COLS * TV_HOPPER_BOX_ROWS)
#define TV_HOPPER_BOXES (TV_HOPPER_WIDTH / TV_HOPPER_BOX_COLS)

struct tv_hopper_scale_args {
    CUtensorMap y; // boxes as above, swizzled
    int boxed;     // the map is there
    tv_gemm_args gemm;
};

template <bool ACCUMULATE, bool TWO> struct tv_hopper_scale {
    typedef tv_hopper_scale_args args;
    static constexpr bool two = TWO, raw = false;
    static constexpr int stages = 5, scratch_bytes = TV_HOPPER_BOXES * TV_HOPPER_BOX_FLOATS * (int)sizeof(float);

    const args &a;
    float scale[TV_HOPPER_BLOCKS][2]; // of the thread's two rows
    uint32_t parity;                  // of the barrier's phase that the next old values end

    __device__ explicit tv_hopper_scale(const args &args) : a(args), parity(0) {}

    __device__ void turn(const tv_hopper_item &) {}
    __device__ void begin(int m, const tv_hopper_place &p)
    {
#pragma unroll
        for (int h = 0; h < 2; h++)
            scale[m][h] = p.row + 8 * h < a.gemm.m ? a.gemm.scale[p.row + 8 * h] : 0.0f;
        if (ACCUMULATE && m == 0)
            fetch_boxes(p);
    }

    __device__ void store(int m, const tv_hopper_place &p, const int32_t (&values)[TV_HOPPER_SUMS])
    {
        float unit = tv_exp2i(a.gemm.exponent), factor[2] = {scale[m][0] * unit, scale[m][1] * unit};
        if (a.boxed)
            store_boxes(m, p, factor, values);
        else
            store_pairs(p, factor, values);
    }

    // The copy engine reads this block's shared memory.
    __device__ void end(const tv_hopper_place &p) const
    {
        if (p.thread == 0)
            tv_copy_out_wait();
    }

    __device__ static float value(int32_t bits, float factor)
    {
        return (TWO ? tv_bits_float((uint32_t)bits) : (float)bits) * factor;
    }

    // Where the 64 rows of this warpgroup begin.
    __device__ static int first_row(const tv_hopper_place &p)
    {
        return (int)p.row - (p.thread / TV_WARP * 16 + p.thread % TV_WARP / 4);
    }

    // The old values of 64 rows, once the engine is done with what stood there.
    __device__ void fetch_boxes(const tv_hopper_place &p) const
    {
        if (p.thread != 0 || !a.boxed)
            return;
        tv_copy_out_wait();
        tv_barrier_expect(p.barrier, scratch_bytes);
        for (int i = 0; i < TV_HOPPER_BOXES; i++)
            tv_copy_box((float *)p.scratch + i * TV_HOPPER_BOX_FLOATS, &a.y, p.barrier,
                        (int)p.col + i * TV_HOPPER_BOX_COLS, first_row(p));
    }

    // Swizzled as the engine has it: piece c of 16 bytes of row r stands at c ^ (r mod 8).
    __device__ void store_boxes(int m, const tv_hopper_place &p, const float factor[2],
                                const int32_t (&values)[TV_HOPPER_SUMS])
    {
        int lane = p.thread % TV_WARP, row = p.thread / TV_WARP * 16 + lane / 4, twist = (lane % 4 / 2) ^ (lane / 4);
        float *box = (float *)p.scratch + row * TV_HOPPER_BOX_COLS + lane % 2 * 2;
        if (ACCUMULATE) {
            if (m > 0)
                fetch_boxes(p);
            tv_barrier_wait(p.barrier, parity);
            parity ^= 1;
        } else {
            if (p.thread == 0)
                tv_copy_out_wait();
            tv_named_sync(1 + p.group, TV_HOPPER_WARPGROUP);
        }
#pragma unroll
        for (int i = 0; i < TV_HOPPER_SUMS / 2; i++) {
            int j = i / 2, h = i % 2;
            float2 *at = (float2 *)(box + j / 4 * TV_HOPPER_BOX_FLOATS + h * 8 * TV_HOPPER_BOX_COLS +
                                    (((j % 4 * 2) ^ twist) << 2));
            float2 v = make_float2(value(values[2 * i], factor[h]), value(values[2 * i + 1], factor[h]));
            if (ACCUMULATE) {
                float2 old = *at;
                v = make_float2(old.x + v.x, old.y + v.y);
            }
            *at = v;
        }
        tv_copy_out_fence();
        tv_named_sync(1 + p.group, TV_HOPPER_WARPGROUP);
        if (p.thread != 0)
            return;
        for (int i = 0; i < TV_HOPPER_BOXES; i++)
            tv_copy_box_out(&a.y, (float *)p.scratch + i * TV_HOPPER_BOX_FLOATS, (int)p.col + i * TV_HOPPER_BOX_COLS,
                            first_row(p));
        tv_copy_out_commit();
    }

    __device__ void store_pairs(const tv_hopper_place &p, const float factor[2],
                                const int32_t (&values)[TV_HOPPER_SUMS]) const
    {
#pragma unroll
        for (int i = 0; i < TV_HOPPER_SUMS; i++) {
            int h = i / 2 % 2;
            int64_t row = p.row + 8 * h, col = p.col + i / 4 * 8 + p.thread % 4 * 2 + i % 2;
            if (row >= a.gemm.m || col >= a.gemm.n)
                continue;
            float v = value(values[i], factor[h]), *y = a.gemm.y + row * a.gemm.n + col;
            *y = ACCUMULATE ? *y + v : v;
        }
    }
};

#endif
