#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crc32.h"

#define MAX_PATH 4096

void stop(enum status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fflush(stdout);
  fputs("tinyfit-trainer: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(status);
}

#ifdef STOP_AT_WRITE
/* For tests: the power fails after so many bytes have been written, in the middle of a write. */
static size_t bytes_before_power_fails(size_t count) {
  static long left = -1;
  if (left == -1) {
    const char *said = getenv("TINYFIT_STOP_AFTER_BYTES");
    left = said ? atol(said) : -2;
  }
  if (left < 0) return count;
  const size_t written = (size_t)left < count ? (size_t)left : count;
  left -= (long)written;
  return written;
}
#endif

file_t open_file(const char *path, int may_write) {
  const file_t file = {open(path, (may_write ? O_RDWR : O_RDONLY) | O_CLOEXEC), path};
  if (file.descriptor < 0) stop(BAD_INPUT, "can't open '%s': %s", path, strerror(errno));
  return file;
}

int file_exists(const char *path) { return access(path, F_OK) == 0; }

uint64_t file_bytes(file_t file) {
  struct stat found;
  if (fstat(file.descriptor, &found) != 0)
    stop(FAILED, "can't read '%s': %s", file.path, strerror(errno));
  if (!S_ISREG(found.st_mode)) stop(BAD_INPUT, "'%s' is no file", file.path);
  return (uint64_t)found.st_size;
}

void close_file(file_t file) { close(file.descriptor); }

void read_at(file_t file, void *bytes, size_t count, uint64_t offset) {
  uint8_t *next = bytes;
  while (count > 0) {
    const ssize_t got = pread(file.descriptor, next, count, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) stop(FAILED, "can't read '%s': %s", file.path, strerror(errno));
    if (got == 0) stop(BAD_INPUT, "'%s' is cut off", file.path);
    next += got, count -= (size_t)got, offset += (uint64_t)got;
  }
}

void write_at(file_t file, const void *bytes, size_t count, uint64_t offset) {
  const uint8_t *next = bytes;
#ifdef STOP_AT_WRITE
  const size_t wanted = count;
  count = bytes_before_power_fails(count);
  const int power_fails = count < wanted;
#endif
  while (count > 0) {
    const ssize_t done = pwrite(file.descriptor, next, count, (off_t)offset);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) stop(FAILED, "can't write '%s': %s", file.path, strerror(errno));
    next += done, count -= (size_t)done, offset += (uint64_t)done;
  }
#ifdef STOP_AT_WRITE
  if (power_fails) _exit(99);
#endif
}

void sync_file(file_t file) {
  if (fdatasync(file.descriptor) != 0)
    stop(FAILED, "can't write '%s': %s", file.path, strerror(errno));
}

static void partial_path(char name[MAX_PATH], const char *path) {
  if (snprintf(name, MAX_PATH, "%s.partial", path) >= MAX_PATH)
    stop(BAD_INPUT, "the path '%s' is too long", path);
}

file_t create_file(const char *path, uint64_t bytes) {
  char name[MAX_PATH];
  partial_path(name, path);
  const file_t file = {open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), path};
  if (file.descriptor < 0) stop(FAILED, "can't create '%s': %s", path, strerror(errno));
  const int wrong = posix_fallocate(file.descriptor, 0, (off_t)bytes);
  if (wrong) {
    unlink(name);
    stop(FAILED, "no room for the %llu bytes of '%s': %s", (unsigned long long)bytes, path,
         strerror(wrong));
  }
  return file;
}

/* The folder too is told to the disk, else the file might have no name after a power cut. */
void publish_file(file_t file, const char *path) {
  char name[MAX_PATH];
  sync_file(file);
  partial_path(name, path);
  if (rename(name, path) != 0) stop(FAILED, "can't create '%s': %s", path, strerror(errno));
  char *slash = strrchr(name, '/');
  if (slash) slash[slash == name] = '\0';
  const int folder = open(slash ? name : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    fsync(folder);
    close(folder);
  }
}

uint32_t crc_of_file(file_t file, uint64_t offset, uint64_t count) {
  uint8_t buffer[4096];
  uint32_t crc = 0;
  while (count > 0) {
    const size_t some = count < sizeof buffer ? (size_t)count : sizeof buffer;
    read_at(file, buffer, some, offset);
    crc = crc32(crc, buffer, some);
    offset += some, count -= some;
  }
  return crc;
}

const void *map_file(file_t file, size_t count) {
  const void *found = mmap(NULL, count, PROT_READ, MAP_PRIVATE, file.descriptor, 0);
  if (found == MAP_FAILED) stop(FAILED, "can't map '%s': %s", file.path, strerror(errno));
  return found;
}

void *take_memory(size_t count) {
  void *found =
      mmap(NULL, count ? count : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED)
    stop(FAILED, "there are no %zu bytes of memory: %s", count, strerror(errno));
  return found;
}

uint64_t peak_resident_bytes(void) {
  char text[4096];
  const int descriptor = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return 0;
  const ssize_t got = read(descriptor, text, sizeof text - 1);
  close(descriptor);
  if (got <= 0) return 0;
  text[got] = '\0';
  const char *line = strstr(text, "VmHWM:");
  return line ? strtoull(line + 6, NULL, 10) * 1024 : 0;
}
