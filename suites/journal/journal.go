// Package journal keeps accepted answers in a file of checked lines, so that a
// killed run asks no question again that was answered.
package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/gofrs/flock"

	"github.com/repromill/repromill/suites"
)

// Config says where a journal lies.
type Config struct {
	Path   string
	NoSync bool         // let an answer survive the process but not the machine, and be faster
	Hook   func(string) // called around every durable step; may be nil
}

// Journal is a [suites.Journal] in a file. A line is the CRC-32C of what follows
// it in eight hex digits, how many bytes of the file were known to be durable
// when the line was written, and the record as JSON. One process at a time has it
// open. It is safe for concurrent use: answers that arrive together are made
// durable by one sync.
type Journal struct {
	c    Config
	lock *flock.Flock

	mu   sync.Mutex
	f    *os.File
	end  int64 // length of the whole records
	seen map[suites.Key]bool
	bad  error // a write failed and what is on disk is not known

	syncing sync.Mutex   // held by whoever syncs for all that wait
	durable atomic.Int64 // bytes that a sync covers
}

var _ suites.Journal = (*Journal)(nil)

// InUseError says that another process has the journal open.
type InUseError struct{ Path string }

func (e *InUseError) Error() string { return "another process writes " + e.Path }

// UserError returns the fix.
func (e *InUseError) UserError() string { return "wait for it to end, or stop it" }

// DamageError says that a record which was durable is not what was written: not
// the work of a crash.
type DamageError struct {
	Path string
	Line int
}

func (e *DamageError) Error() string { return fmt.Sprintf("%s: line %d is damaged", e.Path, e.Line) }

// UserError returns the fix.
func (e *DamageError) UserError() string { return "restore the file, or start the run anew" }

// ErrTwice is returned for a second record of one key.
var ErrTwice = errors.New("the answer is there already")

var table = crc32.MakeTable(crc32.Castagnoli)

// Open opens the journal, or begins it, and takes off a last record that a
// crash cut short. The error may be an [*InUseError] or a [*DamageError].
func Open(c Config) (_ *Journal, err error) {
	lock := flock.New(c.Path + ".lock")
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock journal: %w", err)
	}
	if !ok {
		return nil, &InUseError{c.Path}
	}
	f, err := os.OpenFile(c.Path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), lock.Unlock())
	}
	j := &Journal{c: c, lock: lock, f: f, seen: map[suites.Key]bool{}}
	j.end, err = j.scan(func(r suites.Record) error {
		if j.seen[r.Key] {
			return fmt.Errorf("journal %s: %w: %+v", c.Path, ErrTwice, r.Key)
		}
		j.seen[r.Key] = true
		return nil
	})
	if err == nil {
		err = j.begin()
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// begin cuts off what follows the last whole record and makes the file itself
// durable.
func (j *Journal) begin() error {
	if err := j.f.Truncate(j.end); err != nil {
		return fmt.Errorf("cut journal: %w", err)
	}
	j.durable.Store(j.end)
	if j.c.NoSync {
		return nil
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("sync journal: %w", err)
	}
	dir, err := os.Open(filepath.Dir(j.c.Path))
	if err != nil {
		return fmt.Errorf("sync journal's folder: %w", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (j *Journal) hook(point string) {
	if j.c.Hook != nil {
		j.c.Hook(point)
	}
}

// Append implements [suites.Journal].
func (j *Journal) Append(r suites.Record) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("append to journal: %w", err)
	}
	end, err := j.write(r.Key, body)
	if err != nil {
		return err
	}
	if err := j.sync(end); err != nil {
		return err
	}
	j.hook("journal:append:after")
	return nil
}

// write puts a record into the file and returns where it ends.
func (j *Journal) write(k suites.Key, body []byte) (end int64, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.bad != nil {
		return 0, j.bad
	}
	if j.seen[k] {
		return 0, fmt.Errorf("append to journal: %w: %+v", ErrTwice, k)
	}
	rest := fmt.Appendf(make([]byte, 0, len(body)+24), "%d %s", j.durable.Load(), body)
	line := fmt.Appendf(make([]byte, 0, len(rest)+10), "%08x %s\n", crc32.Checksum(rest, table), rest)
	j.hook("journal:append:before")
	if _, err := j.f.WriteAt(line, j.end); err != nil {
		// The next record goes over what was written of this one.
		return 0, fmt.Errorf("append to journal: %w", err)
	}
	j.end += int64(len(line))
	j.seen[k] = true
	return j.end, nil
}

// sync returns once the file is durable up to end: of those who wait, the first
// syncs for all.
func (j *Journal) sync(end int64) error {
	if j.c.NoSync {
		j.durable.Store(end)
		return nil
	}
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if j.durable.Load() >= end {
		return nil
	}
	j.mu.Lock()
	upTo, bad := j.end, j.bad
	j.mu.Unlock()
	if bad != nil {
		return bad
	}
	if err := j.f.Sync(); err != nil {
		// After a failed sync nothing about the file's tail is certain.
		j.mu.Lock()
		defer j.mu.Unlock()
		j.bad = fmt.Errorf("sync journal: %w", err)
		return j.bad
	}
	j.durable.Store(upTo)
	return nil
}

// Has reports whether the journal holds an answer.
func (j *Journal) Has(k suites.Key) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seen[k]
}

// Replay implements [suites.Journal]. Appending waits while it runs; f must not
// append.
func (j *Journal) Replay(f func(suites.Record) error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := j.scan(f)
	return err
}

// Read calls f for every record of a journal that is not open, without taking it
// or changing it. A file that is not there has none.
func Read(path string, f func(suites.Record) error) error {
	r, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	j := &Journal{c: Config{Path: path}, f: r}
	_, err = j.scan(f)
	return errors.Join(err, r.Close())
}

// scan calls f for every whole record and returns where the last one ends.
func (j *Journal) scan(f func(suites.Record) error) (end int64, err error) {
	size := j.end
	if size == 0 { // while opening
		info, err := j.f.Stat()
		if err != nil {
			return 0, fmt.Errorf("read journal: %w", err)
		}
		size = info.Size()
	}
	br := bufio.NewReaderSize(io.NewSectionReader(j.f, 0, size), 1<<16)
	for n := 1; ; n++ {
		line, err := br.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return end, nil // nothing, or a record without its end
		}
		if err != nil {
			return end, fmt.Errorf("read journal: %w", err)
		}
		r, _, ok := parse(line)
		if !ok {
			return end, j.tail(br, end, n)
		}
		if err := f(r); err != nil {
			return end, err
		}
		end += int64(len(line))
	}
}

// tail decides about a record that is not whole: a crash of the machine may leave
// any part of what was not durable yet. If a later record was written when this
// one was durable, it was damaged.
func (j *Journal) tail(br *bufio.Reader, at int64, n int) error {
	for {
		line, err := br.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read journal: %w", err)
		}
		if _, durable, ok := parse(line); ok && durable > at {
			return &DamageError{j.c.Path, n}
		}
	}
}

func parse(line []byte) (r suites.Record, durable int64, ok bool) {
	sum, rest, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(rest, table)) {
		return r, 0, false
	}
	number, body, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return r, 0, false
	}
	durable, err := strconv.ParseInt(string(number), 10, 64)
	return r, durable, err == nil && json.Unmarshal(body, &r) == nil
}

// Close releases the journal. Nothing is buffered: a process that dies without
// it loses nothing.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return errors.Join(j.f.Close(), j.lock.Unlock())
}
