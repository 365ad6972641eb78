// What the tests of io/ share: temporary folders, files, and a small state whose every value follows from a formula.
#ifndef TV_TESTS_IO_FIXTURE_H
#define TV_TESTS_IO_FIXTURE_H

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on

#include "base/state.h"
#include "base/status.h"
#include "io/checkpoint.h"

// A new folder, malloc'd; io_folder_free removes it with all that is in it.
char *io_folder_new(void);
void io_folder_free(char *folder);
// printf into one of eight rotating buffers: paths for calls that need them once.
const char *io_path(const char *format, ...) __attribute__((format(printf, 1, 2)));

char *io_read(const char *path, size_t *bytes); // malloc'd, with a NUL behind it
void io_write(const char *path, const void *data, size_t bytes);
void io_write_text(const char *path, const char *text);
void io_flip_bit(const char *path, size_t byte, int bit);
int io_exists(const char *path);
void io_copy_folder(const char *from, const char *to); // one level of regular files
int io_count_entries(const char *folder);              // all but . and ..

// The state: arrays of all four types, with 1 to 3000 rows; rank `rank` of `ranks` holds its consecutive block. `salt`
// changes the values.
enum { IO_ARRAYS = 9 };
typedef struct io_state {
    tv_state_array arrays[IO_ARRAYS + 1]; // the last one only with io_state_enlarge
} io_state;
void io_state_make(io_state *state, int rank, int ranks, int salt);
// One array more, of all zeros, so that a shard is written in IO_PIECES pieces (of 4 MiB).
enum { IO_PIECES = 4 };
void io_state_enlarge(io_state *state);
void io_state_free(io_state *state);
// What row `row`, item `item` of array `index` must be.
int64_t io_state_value(int index, int64_t row, int64_t item, int salt);
// Fails the test unless the checkpoint gives back exactly the values of the formulas for the block of `rank` of
// `ranks`.
void io_state_check(tv_checkpoint *checkpoint, int rank, int ranks, int salt);
// The digest of the whole state, computed from all rows at once.
tv_hash128 io_state_digest(int salt);
// Info with every field set, config_text included (a literal, not to be freed).
tv_checkpoint_info io_info(int64_t step);
// Saves the whole state of `salt` as one writer.
void io_save(const char *run_dir, int64_t step, int salt);

#define assert_ok(call) io_expect((call), TV_OK, __FILE__, __LINE__)
#define assert_status(expected, call) io_expect((call), (expected), __FILE__, __LINE__)
void io_expect(tv_status got, tv_status expected, const char *file, int line);
#define assert_message(part) io_expect_message((part), __FILE__, __LINE__)
void io_expect_message(const char *part, const char *file, int line);

#endif
