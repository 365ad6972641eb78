// The parts of images and sounds, behind the embedding: at the unit's feature positions x[t] += gate lin(Proj, norm(feature)), where the gate
// is one int8 weight a modality, (g + 128) / 256, that votes move by one a step.
#ifndef TV_MODEL_MODALITY_H
#define TV_MODEL_MODALITY_H

#include "model/part.h"

tv_status tv_modality_create(tv_modality modality, tv_part **out);
// What the config says of a modality: values F of a feature (0: the model has none) and features of an item.
int64_t tv_modality_width(const tv_config *config, tv_modality modality);
int64_t tv_modality_frames(const tv_config *config, tv_modality modality);
// "image", "audio"
const char *tv_modality_name(tv_modality modality);

#endif
