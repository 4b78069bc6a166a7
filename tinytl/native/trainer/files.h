/* Files of the commands. What goes wrong ends the program with a sentence. */
#ifndef FILES_H
#define FILES_H

#include <stddef.h>
#include <stdint.h>

enum status { DONE, FAILED, BAD_INPUT };

typedef struct {
  int descriptor;
  const char *path;
} file_t;

_Noreturn void stop(enum status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* may_write: else it is read only. Stops where it can't be opened. */
file_t open_file(const char *path, int may_write);
int file_exists(const char *path);
uint64_t file_bytes(file_t file);
void close_file(file_t file);

/* All of the bytes, or the program stops: the file is cut off there, or the disk is full. */
void read_at(file_t file, void *bytes, size_t count, uint64_t offset);
void write_at(file_t file, const void *bytes, size_t count, uint64_t offset);
/* Once this returns, what was written stays, whatever happens. */
void sync_file(file_t file);

/* A new file of this size, which only takes `path`'s place with publish_file. */
file_t create_file(const char *path, uint64_t bytes);
void publish_file(file_t file, const char *path);

/* The CRC of what lies in the file. */
uint32_t crc_of_file(file_t file, uint64_t offset, uint64_t count);

/* Mapped for reading. */
const void *map_file(file_t file, size_t count);

/* Zeroed memory, aligned to pages; none of it is resident before it is touched. */
void *take_memory(size_t count);

/* The most that this process has been resident with (VmHWM); 0 where the system does not say. */
uint64_t peak_resident_bytes(void);

#endif
