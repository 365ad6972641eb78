#include <stdio.h>
#include <string.h>

#include "io/shard_h5_internal.h"

tv_status tv_h5_start(void)
{
    static int started;
    if (started)
        return TV_OK;
    // A filter plugin is a shared library that a file could name; none is ever loaded.
    if (H5open() < 0 || H5PLset_loading_state(0) < 0 || H5Eset_auto2(H5E_DEFAULT, NULL, NULL) < 0)
        return TV_FAIL(TV_IO, "the HDF5 library does not start");
    started = 1;
    return TV_OK;
}

// The innermost and the outermost description.
typedef struct stack_ends {
    char first[160], last[160];
} stack_ends;

static herr_t keep_ends(unsigned n, const H5E_error2_t *error, void *data)
{
    stack_ends *ends = data;
    const char *text = error->desc ? error->desc : "";
    snprintf(n == 0 ? ends->first : ends->last, sizeof ends->first, "%s", text);
    return 0;
}

tv_status tv_h5_fail(tv_status code, const char *path, const char *what)
{
    stack_ends ends = {"", ""};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_ends, &ends);
    H5Eclear2(H5E_DEFAULT);
    if (!ends.first[0])
        return TV_FAIL(code, "%s: %s", path, what);
    if (!ends.last[0])
        return TV_FAIL(code, "%s: %s: HDF5 says: %s", path, what, ends.first);
    return TV_FAIL(code, "%s: %s: HDF5 says: %s (%s)", path, what, ends.last, ends.first);
}

hid_t tv_h5_file_type(tv_dtype dtype)
{
    switch (dtype) {
    case TV_U8: return H5T_STD_U8LE;
    case TV_I8: return H5T_STD_I8LE;
    case TV_I16: return H5T_STD_I16LE;
    case TV_I32: return H5T_STD_I32LE;
    default: return H5I_INVALID_HID;
    }
}

hid_t tv_h5_driver_access(const H5FD_class_t *class, hid_t *driver, const void *info)
{
    if (*driver < 0 && (*driver = H5FDregister(class)) < 0)
        return H5I_INVALID_HID;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0 && H5Pset_driver(access, *driver, info) < 0) {
        H5Pclose(access);
        return H5I_INVALID_HID;
    }
    return access;
}

tv_status tv_h5_check_link(tv_status code, const char *path, hid_t file, const char *link, const char *words)
{
    H5L_info_t info;
    htri_t there = H5Lexists(file, link, H5P_DEFAULT);
    if (there < 0 || (there && H5Lget_info(file, link, &info, H5P_DEFAULT) < 0))
        return tv_h5_fail(code, path, words);
    if (!there)
        return TV_FAIL(code, "%s: %s is missing", path, words);
    switch (info.type) {
    case H5L_TYPE_HARD: return TV_OK;
    case H5L_TYPE_SOFT: return TV_FAIL(code, "%s: %s is a soft link, which is refused", path, words);
    case H5L_TYPE_EXTERNAL: return TV_FAIL(code, "%s: %s is an external link, which is refused", path, words);
    default: return TV_FAIL(code, "%s: %s is a user-defined link, which is refused", path, words);
    }
}
