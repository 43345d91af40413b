package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// Options say how a folder becomes a layer. The zero value puts it at the
// image's root with the times of [Epoch].
type Options struct {
	// At is the absolute path in the image that stands for the folder.
	At string
	// Time is the modification time of every entry, cut to seconds.
	Time time.Time
	// Skip leaves out an entry, with all below it, by its slash path below the
	// folder. It may be nil.
	Skip func(rel string, e fs.DirEntry) bool
	// MaxBytes and MaxFiles bound what is taken; 0 means 32 GiB and 2 million.
	MaxBytes int64
	MaxFiles int
}

// Epoch is the time of entries that have none: the first one a zip file can
// hold, so that packing tools inside the image work.
func Epoch() time.Time { return time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC) }

const (
	maxBytes = 32 << 30
	maxFiles = 2_000_000
)

// LimitError says that a folder is too large for a layer.
type LimitError struct {
	Dir  string
	What string // "32 GiB" or "2000000 entries"
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s holds more than %s", e.Dir, e.What)
}

type tarWriter struct {
	ctx  context.Context
	o    Options
	dir  string
	root *os.Root
	w    *tar.Writer
	d    Descriptor
	buf  []byte
}

// writeTar writes folders, regular files and links, in the order of their
// names, owned by root with modes 0755 and 0644. Entries are USTAR unless a
// name or size needs a PAX record; setuid bits, owners, times, extended
// attributes and hard links are dropped, so that they cannot differ.
func writeTar(ctx context.Context, w io.Writer, dir string, o Options) (Descriptor, error) {
	if o.Time.IsZero() {
		o.Time = Epoch()
	}
	o.Time = o.Time.UTC().Truncate(time.Second)
	if o.MaxBytes == 0 {
		o.MaxBytes = maxBytes
	}
	if o.MaxFiles == 0 {
		o.MaxFiles = maxFiles
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Descriptor{}, err
	}
	defer root.Close()
	t := &tarWriter{ctx: ctx, o: o, dir: dir, root: root, w: tar.NewWriter(w), buf: make([]byte, 256<<10)}
	if err := t.parents(); err != nil {
		return Descriptor{}, err
	}
	if err := fs.WalkDir(root.FS(), ".", t.entry); err != nil {
		return Descriptor{}, err
	}
	return t.d, t.w.Close()
}

// parents writes the folders above At, so that their modes do not depend on
// who unpacks the layer.
func (t *tarWriter) parents() error {
	at := strings.Trim(path.Clean("/"+t.o.At), "/")
	for i, c := range at {
		if c == '/' {
			if err := t.header(at[:i]+"/", tar.TypeDir, 0o755, 0, ""); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *tarWriter) header(name string, kind byte, mode, size int64, link string) error {
	return t.w.WriteHeader(&tar.Header{Typeflag: kind, Name: name, Mode: mode, Size: size, Linkname: link, ModTime: t.o.Time})
}

func (t *tarWriter) entry(rel string, e fs.DirEntry, err error) error {
	if err = errors.Join(err, t.ctx.Err()); err != nil {
		return err
	}
	if rel != "." && t.o.Skip != nil && t.o.Skip(rel, e) {
		if e.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if t.d.Files++; t.d.Files > t.o.MaxFiles {
		return &LimitError{t.dir, fmt.Sprintf("%d entries", t.o.MaxFiles)}
	}
	name := strings.TrimPrefix(path.Join(path.Clean("/"+t.o.At), rel), "/")
	switch e.Type() {
	case fs.ModeDir:
		if name == "" {
			return nil
		}
		return t.header(name+"/", tar.TypeDir, 0o755, 0, "")
	case fs.ModeSymlink:
		target, err := t.root.Readlink(rel)
		if err != nil {
			return err
		}
		return t.header(name, tar.TypeSymlink, 0o777, 0, target)
	case 0:
		return t.file(rel, name)
	}
	t.d.Files--
	t.d.Left++
	return nil
}

func (t *tarWriter) file(rel, name string) error {
	// O_NOFOLLOW: what was a file when the folder was listed must be one now.
	f, err := t.root.OpenFile(rel, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if t.d.Bytes += info.Size(); t.d.Bytes > t.o.MaxBytes {
		return &LimitError{t.dir, fmt.Sprintf("%d GiB", t.o.MaxBytes>>30)}
	}
	mode := int64(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	if err := t.header(name, tar.TypeReg, mode, info.Size(), ""); err != nil {
		return err
	}
	// The reader is wrapped so that the copy uses our buffer: the tar writer's
	// own ReadFrom takes a small one of its own for every file.
	n, err := io.CopyBuffer(struct{ io.Writer }{t.w}, struct{ io.Reader }{io.LimitReader(f, info.Size())}, t.buf)
	if err == nil && n < info.Size() {
		err = fmt.Errorf("%s became shorter while it was read", rel)
	}
	return err
}
