package git

import (
	"fmt"
	"io"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
)

// objects is where the trees and blobs of a commit are read from: a spool, a
// repository on disk, or a plain folder. Implementations need not be safe for
// concurrent use.
type objects interface {
	// object opens an object. A missing one is plumbing.ErrObjectNotFound.
	object(h plumbing.Hash) (*openObject, error)
	// oversize returns the size of a blob that was seen and not kept because
	// it is over the cap of one file.
	oversize(h plumbing.Hash) (int64, bool)
}

// openObject is one object's content.
type openObject struct {
	io.Reader
	typ   plumbing.ObjectType
	size  int64
	close func() error // may be nil
}

func (o *openObject) Close() error {
	if o.close == nil {
		return nil
	}
	return o.close()
}

const spoolBuffer = 1 << 20

// spool keeps inflated objects one after another in a single file. It is the
// reason why a clone inflates every object once and creates no loose objects:
// a tree's files are then written straight from it.
type spool struct {
	f       *os.File
	buf     []byte // not yet in f
	flushed int64  // bytes in f
	limit   int64  // of bytes in all
	total   int64  // the user's limit that limit follows from
	index   map[plumbing.Hash]spooled
	over    map[plumbing.Hash]int64
}

type spooled struct {
	at, size int64
	typ      plumbing.ObjectType
}

// newSpool creates the spool's file. The file is unlinked by whoever removes
// the staging folder.
func newSpool(path string, limit, total int64) (*spool, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create spool: %w", err)
	}
	return &spool{f: f, limit: limit, total: total, buf: make([]byte, 0, spoolBuffer),
		index: map[plumbing.Hash]spooled{}, over: map[plumbing.Hash]int64{}}, nil
}

// len returns where the next byte will go.
func (s *spool) len() int64 { return s.flushed + int64(len(s.buf)) }

func (s *spool) Write(p []byte) (int, error) {
	if s.len()+int64(len(p)) > s.limit {
		return 0, &LimitError{Cap: CapTotal, Limit: s.total, What: "all objects, unpacked"}
	}
	if len(s.buf)+len(p) > cap(s.buf) {
		if err := s.flush(); err != nil {
			return 0, err
		}
		if len(p) >= cap(s.buf) {
			n, err := s.f.WriteAt(p, s.flushed)
			s.flushed += int64(n)
			return n, err
		}
	}
	s.buf = append(s.buf, p...)
	return len(p), nil
}

func (s *spool) flush() error {
	n, err := s.f.WriteAt(s.buf, s.flushed)
	s.flushed += int64(n)
	s.buf = s.buf[:0]
	if err != nil {
		return fmt.Errorf("write spool: %w", err)
	}
	return nil
}

// section reads part of the spool.
func (s *spool) section(at, size int64) (io.Reader, error) {
	if at+size > s.flushed {
		if err := s.flush(); err != nil {
			return nil, err
		}
	}
	return io.NewSectionReader(s.f, at, size), nil
}

// read returns part of the spool in dst, which is grown as needed.
func (s *spool) read(dst []byte, at, size int64) ([]byte, error) {
	r, err := s.section(at, size)
	if err != nil {
		return nil, err
	}
	if int64(cap(dst)) < size {
		dst = make([]byte, size)
	}
	dst = dst[:size]
	if _, err := io.ReadFull(r, dst); err != nil {
		return nil, fmt.Errorf("read spool: %w", err)
	}
	return dst, nil
}

func (s *spool) object(h plumbing.Hash) (*openObject, error) {
	e, ok := s.index[h]
	if !ok {
		return nil, plumbing.ErrObjectNotFound
	}
	r, err := s.section(e.at, e.size)
	if err != nil {
		return nil, err
	}
	return &openObject{Reader: r, typ: e.typ, size: e.size}, nil
}

func (s *spool) oversize(h plumbing.Hash) (int64, bool) {
	n, ok := s.over[h]
	return n, ok
}

// close removes the file: nothing needs it once the tree is written.
func (s *spool) close() error {
	err := s.f.Close()
	if rerr := os.Remove(s.f.Name()); err == nil {
		err = rerr
	}
	return err
}
