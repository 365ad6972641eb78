// The conversation's memory: two ternary LSTM cells over segments of a window, whose state is added to the segments behind.
#ifndef TV_MODEL_FOCUS_H
#define TV_MODEL_FOCUS_H

#include "model/part.h"

tv_status tv_focus_create(tv_part **part);

#endif
