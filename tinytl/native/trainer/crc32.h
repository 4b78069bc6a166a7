#ifndef CRC32_H
#define CRC32_H

#include <stddef.h>
#include <stdint.h>

/* zlib's crc32: start with 0, go on with what it returned. */
uint32_t crc32(uint32_t crc, const void *bytes, size_t count);

#endif
