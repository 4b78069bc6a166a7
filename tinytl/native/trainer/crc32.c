#include "crc32.h"

uint32_t crc32(uint32_t crc, const void *bytes, size_t count) {
  static uint32_t table[256];
  if (!table[1])
    for (uint32_t byte = 0; byte < 256; byte++) {
      uint32_t value = byte;
      for (int bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320u ^ value >> 1 : value >> 1;
      table[byte] = value;
    }
  const uint8_t *next = bytes;
  crc = ~crc;
  while (count--) crc = table[(crc ^ *next++) & 255] ^ crc >> 8;
  return ~crc;
}
