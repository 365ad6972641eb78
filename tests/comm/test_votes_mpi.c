// Votes of 8 and 16 bits, summed whole and by rows, against the direct sum in int64.
#include <stdlib.h>
#include <string.h>

#include "comm/vote_exchange.h"
#include "mpi_fixture.h"

static int ranks(void) { return tv_comm_size(fixture_comm); }

static int my_rank(void) { return tv_comm_rank(fixture_comm); }

// How the ranks' votes of an item are chosen, from a rank's share B.
typedef enum pattern { ALL_MOST, ALL_LEAST, ALTERNATING, ONE_AGAINST, MIXED, PATTERN_COUNT } pattern;

static int64_t vote_of(pattern p, int rank, int64_t i, int64_t share)
{
    uint64_t mix = ((uint64_t)i * 4 + (uint64_t)rank + 1) * 0x9E3779B97F4A7C15u;
    switch (p) {
    case ALL_MOST: return share;
    case ALL_LEAST: return -share;
    case ALTERNATING: return i % 2 ? share : -share; // the two lanes of a word at opposite ends
    case ONE_AGAINST: return rank == i % 5 ? -share : share;
    default: return (int64_t)((mix >> 33) % (uint64_t)(2 * share + 1)) - share;
    }
}

static int64_t sum_of(pattern p, int64_t i, int64_t share)
{
    int64_t sum = 0;
    for (int r = 0; r < ranks(); r++)
        sum += vote_of(p, r, i, share);
    return sum;
}

static int64_t vote_get(const void *votes, int bits, int64_t i)
{
    return bits == 8 ? ((const int8_t *)votes)[i] : ((const int16_t *)votes)[i];
}

// Exchanges in the backend's memory what lies in the host's: the whole sum of `items`, or the scatter of a block.
static tv_status exchange(void *host, tv_votes votes, int64_t items, int64_t block)
{
    int64_t bytes = (block ? block * ranks() : items + 1) * votes.bits / 8;
    votes.data = memory_give(host, bytes);
    votes.items = block ? block : items;
    assert_ok((block ? tv_vote_scatter : tv_vote_sum)(fixture_comm, &votes, 1, NULL));
    tv_status st = tv_vote_finish(fixture_comm, NULL);
    memory_take(votes.data, host, bytes);
    return st;
}

// A buffer of count votes of this rank, padded to an even number of items with zeros.
static void *votes_new(pattern p, int bits, int64_t count, int64_t share)
{
    void *votes = calloc((size_t)count + 2, (size_t)bits / 8);
    assert_non_null(votes);
    for (int64_t i = 0; i < count; i++) {
        int64_t vote = vote_of(p, my_rank(), i, share);
        if (bits == 8)
            ((int8_t *)votes)[i] = (int8_t)vote;
        else
            ((int16_t *)votes)[i] = (int16_t)vote;
    }
    return votes;
}

static void check_sum(pattern p, int bits, int64_t count, int64_t limit)
{
    int64_t share = limit / ranks();
    void *votes = votes_new(p, bits, count, share);
    int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES);
    assert_ok(exchange(votes, (tv_votes){.bits = bits, .limit = limit}, count, 0));
    int64_t wire = bits == 8 ? count : 4 * ((count + 1) / 2);
    assert_int_equal(tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES) - before, wire);
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(vote_get(votes, bits, i), sum_of(p, i, share));
    assert_int_equal(vote_get(votes, bits, count), 0); // the pad stays zero
    free(votes);
}

// The rows of a [rows, cols] tensor split over the ranks: the owner of a row gets what the whole sum would give.
static void check_scatter(pattern p, int bits, int64_t rows, int64_t limit)
{
    const int64_t cols = 6; // even, so that every block is
    int64_t share = limit / ranks(), block = tv_split_block(rows, ranks()) * cols, first, count;
    void *votes = calloc((size_t)(block * ranks()), (size_t)bits / 8);
    void *real = votes_new(p, bits, rows * cols, share);
    assert_non_null(votes);
    memcpy(votes, real, (size_t)(rows * cols * bits / 8)); // rows beyond the last are zero
    int64_t before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES);
    assert_ok(exchange(votes, (tv_votes){.bits = bits, .limit = limit}, 0, block));
    assert_int_equal(tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES) - before, block * ranks() * bits / 8);
    assert_ok(exchange(real, (tv_votes){.bits = bits, .limit = limit}, rows * cols, 0));
    tv_split_rows(rows, my_rank(), ranks(), &first, &count);
    for (int64_t i = first * cols; i < (first + count) * cols; i++)
        assert_int_equal(vote_get(votes, bits, i), vote_get(real, bits, i));
    for (int64_t i = my_rank() * block + count * cols; i < (my_rank() + 1) * block; i++)
        assert_int_equal(vote_get(votes, bits, i), 0); // the pad rows of the block
    free(real);
    free(votes);
}

// limit: the largest that the type holds and R divides, U q for 12 units, and the smallest.
static void for_limits(int bits, void (*check)(pattern, int, int64_t, int64_t), const int64_t *sizes, int count)
{
    const int64_t most = bits == 8 ? 127 : 32767;
    const int64_t limits[] = {most - most % ranks(), bits == 8 ? 12 * 7 : 12 * 15, ranks()};
    for (int l = 0; l < 3; l++)
        for (int p = 0; p < PATTERN_COUNT; p++)
            for (int s = 0; s < count; s++)
                check((pattern)p, bits, sizes[s], limits[l]);
}

static const int64_t counts[] = {0, 1, 2, 7, 1000, 4099};
static const int64_t row_counts[] = {1, 2, 3, 5, 12, 101};

static void test_sum_8(void **state)
{
    (void)state;
    for_limits(8, check_sum, counts, 6);
}

static void test_sum_16(void **state)
{
    (void)state;
    for_limits(16, check_sum, counts, 6);
}

static void test_scatter_8(void **state)
{
    (void)state;
    for_limits(8, check_scatter, row_counts, 6);
}

static void test_scatter_16(void **state)
{
    (void)state;
    for_limits(16, check_scatter, row_counts, 6);
}

static void test_chunked(void **state)
{
    (void)state;
    fixture_comm->chunk_items = 5;
    check_sum(MIXED, 8, 101, 84);
    check_sum(MIXED, 16, 101, 32760);
    check_scatter(MIXED, 8, 21, 84);
    check_scatter(MIXED, 16, 21, 32760);
    fixture_comm->chunk_items = TV_COMM_CHUNK_ITEMS;
}

static tv_status sum_of_four(void *data, int bits, int64_t limit)
{
    return tv_vote_sum(fixture_comm, &(tv_votes){data, bits, limit, 4}, 1, NULL);
}

static void test_wrong_arguments(void **state)
{
    (void)state;
    _Alignas(4) int16_t data[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    uint64_t before = tv_comm_sequence(fixture_comm);
    assert_status(TV_INTERNAL, sum_of_four(data, 12, 12));
    assert_status(TV_INTERNAL, sum_of_four(data, 8, 128));
    assert_status(TV_INTERNAL, sum_of_four(data, 16, 32768));
    assert_status(TV_INTERNAL, sum_of_four(data, 16, 0));
    assert_status(TV_INTERNAL, sum_of_four(data + 1, 16, 12));
    assert_status(TV_INTERNAL, tv_vote_scatter(fixture_comm, &(tv_votes){data, 16, 12, 3}, 1, NULL));
    if (ranks() > 1)
        assert_status(TV_INTERNAL, sum_of_four(data, 16, 10 * ranks() + 1));
    assert_int_equal(tv_comm_sequence(fixture_comm), before);
    for (int i = 0; i < 9; i++)
        assert_int_equal(data[i], i + 1);
}

// Tensors of several lengths, 8 and 16 bits, in one exchange; the last of wrong limit stops it before anything moves.
static void test_several(void **state)
{
    (void)state;
    enum { TENSORS = 40, LONGEST = 78 };
    tv_votes votes[TENSORS + 1] = {0};
    int64_t total = 0, before = tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES), share = 120 / ranks();
    for (int i = 0; i < TENSORS; i++) {
        int bits = i % 3 ? 16 : 8;
        void *host = votes_new(MIXED, bits, 2 * i, share);
        int64_t bytes = 2 * i * bits / 8;
        votes[i] = (tv_votes){memory_give(host, bytes), bits, 120, 2 * i};
        total += bytes;
        free(host);
    }
    votes[TENSORS] = (tv_votes){votes[0].data, 8, 128, 1};
    assert_status(TV_INTERNAL, tv_vote_sum(fixture_comm, votes, TENSORS + 1, NULL));
    assert_ok(tv_vote_sum(fixture_comm, votes, TENSORS, NULL));
    assert_ok(tv_vote_finish(fixture_comm, NULL));
    assert_int_equal(tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES) - before, total);
    for (int i = 0; i < TENSORS; i++) {
        int16_t host[LONGEST];
        memory_take(votes[i].data, host, votes[i].items * votes[i].bits / 8);
        for (int64_t k = 0; k < votes[i].items; k++)
            assert_int_equal(vote_get(host, votes[i].bits, k), sum_of(MIXED, k, share));
    }
}

// Tensors that lie right behind each other, from `first` on: as many calls as there are gaps, and one more.
static void check_neighbours(int bits, const int64_t *gaps, int tensors, int calls)
{
    enum { MOST = 8, ITEMS = 6 };
    tv_votes votes[MOST];
    int64_t share = 120 / ranks(), places[MOST], all = 0, bytes = bits / 8;
    for (int i = 0; i < tensors; i++) {
        places[i] = all;
        all += ITEMS + gaps[i];
    }
    char *host = votes_new(MIXED, bits, all, share);
    char *data = memory_give(host, all * bytes);
    for (int i = 0; i < tensors; i++)
        votes[i] = (tv_votes){data + places[i] * bytes, bits, 120, ITEMS};
    uint64_t before = tv_comm_sequence(fixture_comm);
    int64_t wire = tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES);
    assert_ok(tv_vote_sum(fixture_comm, votes, tensors, NULL));
    assert_ok(tv_vote_finish(fixture_comm, NULL));
    assert_int_equal(tv_comm_sequence(fixture_comm) - before, calls);
    assert_int_equal(tv_comm_wire_bytes(fixture_comm, TV_WIRE_VOTES) - wire, tensors * ITEMS * bytes);
    memory_take(data, host, all * bytes);
    for (int i = 0; i < tensors; i++)
        for (int64_t k = places[i]; k < places[i] + ITEMS + gaps[i]; k++)
            assert_int_equal(vote_get(host, bits, k),
                             k < places[i] + ITEMS ? sum_of(MIXED, k, share) : vote_of(MIXED, my_rank(), k, share));
    free(host);
}

static void test_neighbours(void **state)
{
    (void)state;
    const int64_t none[5] = {0}, some[5] = {0, 4, 0, 2, 0};
    check_neighbours(8, none, 5, 1);
    check_neighbours(16, none, 5, 1);
    check_neighbours(8, some, 5, 3);
    check_neighbours(16, some, 5, 3);
    check_neighbours(8, none, 1, 1);
}

// More words than a GPU takes in one turn of its threads.
static void test_large(void **state)
{
    (void)state;
    int64_t count = fixture_backend->host_memory ? 20001 : ((int64_t)1 << 25) + 20001;
    check_sum(MIXED, 8, count, 120);
    check_sum(MIXED, 16, count, 32760);
    check_scatter(MIXED, 16, count / 6, 32760);
}

// This rank's state after an exchange that rank `wrong` spoilt; taken back, so that the next case can run.
static void check_spoilt(int wrong)
{
    assert_int_equal(fixture_comm->broken, my_rank() == wrong);
    fixture_comm->broken = 0;
}

// A rank with a vote beyond its share takes part all the same, so that nobody waits, and takes part in nothing
// afterwards.
static void test_vote_beyond_share(void **state)
{
    (void)state;
    const int64_t share = 10, limit = share * ranks(), block = 2;
    if (ranks() == 1 && !fixture_backend->host_memory)
        return; // nothing is exchanged, so no vote can spoil another's
    for (int wrong = 0; wrong < ranks(); wrong++)
        for (int sign = -1; sign <= 1; sign += 2) {
            int16_t *votes = calloc((size_t)(block * ranks()) + 1, sizeof *votes);
            assert_non_null(votes);
            tv_status expected = my_rank() == wrong ? TV_INTERNAL : TV_OK;
            votes[1] = (int16_t)(my_rank() == wrong ? sign * (share + 1) : 0);
            assert_status(expected, exchange(votes, (tv_votes){.bits = 16, .limit = limit}, block, 0));
            check_spoilt(wrong);
            memset(votes, 0, (size_t)(block * ranks()) * sizeof *votes);
            votes[0] = (int16_t)(my_rank() == wrong ? sign * (share + 1) : 0);
            assert_status(expected, exchange(votes, (tv_votes){.bits = 16, .limit = limit}, 0, block));
            check_spoilt(wrong);
            free(votes);
        }
    assert_ok(tv_comm_agree(fixture_comm, TV_OK));
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_8),           cmocka_unit_test(test_sum_16),
        cmocka_unit_test(test_scatter_8),       cmocka_unit_test(test_scatter_16),
        cmocka_unit_test(test_chunked),         cmocka_unit_test(test_several),
        cmocka_unit_test(test_neighbours),      cmocka_unit_test(test_large),
        cmocka_unit_test(test_wrong_arguments), cmocka_unit_test(test_vote_beyond_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv) { return fixture_main(argc, argv, run); }
