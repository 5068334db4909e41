/** Port of ESP-IDF's soc_caps.h: what differs between the chips that the port stands for. */
#pragma once

#include "sdkconfig.h"

#if !CONFIG_IDF_TARGET_ESP32
#define SOC_SUPPORTS_SECURE_DL_MODE 1
#endif
