// Package content names files and folders by what they hold, so that a run can
// tell whether it is given what was planned with.
//
// The name of a file is the SHA-256 of its bytes. The name of a folder is the
// SHA-256 of a list with one line for each file below it, in the order of their
// paths by bytes, written as sha256sum(1) writes it:
//
//	(cd DIR && find . -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 sha256sum) | sha256sum
//
// gives the same for a folder without links. A link that stays in the folder
// adds the line "link <target>  <path>" in its place; empty folders, times,
// owners and permissions do not count.
package content

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Sum is what a path holds.
type Sum struct {
	SHA256 string // lower-case hex
	Files  int64
	Bytes  int64
	Folder bool
}

// Error says why something has no name of its own; it is the user's to mend.
type Error struct{ Path, Why, Fix string }

func (e *Error) Error() string { return fmt.Sprintf("%s %s; %s", e.Path, e.Why, e.Fix) }

// UserError returns the fix.
func (e *Error) UserError() string { return e.Fix }

// Config says how the reading is done. The zero value is ready to use.
type Config struct {
	// Workers read files at once; 0 means as many as there are processors, at
	// most 8.
	Workers int
	// Progress, when set, hears how many files and bytes have been read; it is
	// called from one goroutine at a time.
	Progress func(files, bytes int64)
}

// Of reads an absolute path, a file or a folder, and names it. Memory is
// bounded by the names in one folder and not by sizes. Links are never
// followed: one that leaves the folder, a device, a socket, a pipe and a file
// that cannot be read are an [Error].
func Of(ctx context.Context, name string, cfg Config) (Sum, error) {
	info, err := os.Stat(name)
	if err != nil {
		return Sum{}, &Error{name, "cannot be read: " + cause(err), "name a file or folder that is there and that you may read"}
	}
	w := &walk{ctx: ctx, cfg: cfg, list: sha256.New()}
	if !info.IsDir() {
		if !info.Mode().IsRegular() {
			return Sum{}, &Error{name, "is neither a file nor a folder", "name a file or folder"}
		}
		f, err := os.Open(name)
		if err != nil {
			return Sum{}, unreadable(name, err)
		}
		defer f.Close()
		sum, err := w.file(name, f, make([]byte, bufferBytes))
		w.count()
		return Sum{SHA256: sum, Files: 1, Bytes: w.bytes}, err
	}
	if w.root, err = os.OpenRoot(name); err != nil {
		return Sum{}, unreadable(name, err)
	}
	defer w.root.Close()
	w.name = name
	if err := w.folder(); err != nil {
		return Sum{}, err
	}
	if w.files == 0 {
		return Sum{}, &Error{name, "holds no file", "name the folder that the data lies in"}
	}
	return Sum{SHA256: hex.EncodeToString(w.list.Sum(nil)), Files: w.files, Bytes: w.bytes, Folder: true}, nil
}

func unreadable(name string, err error) error {
	return &Error{name, "cannot be read: " + cause(err), "make it readable, or copy the data to a folder of your own"}
}

// cause is an error without the path, which stands before it.
func cause(err error) string {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err.Error()
		}
		err = u.Unwrap()
	}
}

type walk struct {
	ctx  context.Context
	cfg  Config
	root *os.Root
	name string // of the root
	list hash.Hash

	mu           sync.Mutex
	files, bytes int64
}

// workers is how many files are read at once.
func (w *walk) workers() int {
	if w.cfg.Workers > 0 {
		return w.cfg.Workers
	}
	return min(runtime.GOMAXPROCS(0), 8)
}

// entry is one line of the list; sum is sent once it is known.
type entry struct {
	path string
	sum  chan result
}

type result struct {
	line string // the part before the path
	err  error
}

// folder reads the whole tree: one goroutine lists, the workers read, and the
// lines are taken in the order of the listing.
func (w *walk) folder() error {
	ctx, stop := context.WithCancel(w.ctx)
	defer stop()
	w.ctx = ctx
	lines := make(chan entry, 64) // bounds how far the listing runs ahead
	work := make(chan entry)
	var wg sync.WaitGroup
	for range w.workers() {
		wg.Go(func() {
			buf := make([]byte, bufferBytes)
			for e := range work {
				sum, err := w.open(e.path, buf)
				e.sum <- result{sum, err}
			}
		})
	}
	listed := make(chan error, 1)
	go func() {
		err := w.dir(".", lines, work)
		close(work)
		close(lines)
		listed <- err
	}()
	var first error
	for e := range lines {
		r := <-e.sum
		if first == nil && r.err != nil {
			first = r.err
			stop()
		}
		if first == nil {
			_, _ = io.WriteString(w.list, line(r.line, e.path)) // a hash takes everything
		}
	}
	wg.Wait()
	if err := <-listed; first == nil {
		first = err
	}
	return first
}

// line is written as sha256sum writes it: a path with a backslash or an end of
// line is escaped, and the line begins with a backslash.
func line(sum, p string) string {
	if strings.ContainsAny(p, "\\\n\r") {
		sum, p = `\`+sum, strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`).Replace(p)
	}
	return sum + "  " + p + "\n"
}

// dir lists one folder in the order of the paths: a folder sorts as its name
// with a slash.
func (w *walk) dir(name string, lines chan<- entry, work chan<- entry) error {
	f, err := w.root.Open(name)
	if err != nil {
		return w.refuse(name, "cannot be read: "+cause(err), "make it readable, or copy the data to a folder of your own")
	}
	list, err := f.ReadDir(-1)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return w.refuse(name, "cannot be read: "+cause(err), "try again, or copy the data")
	}
	key := func(e fs.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(key(a), key(b)) })
	for _, e := range list {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		p := path.Join(name, e.Name())
		en := entry{p, make(chan result, 1)}
		switch {
		case e.IsDir():
			if err := w.dir(p, lines, work); err != nil {
				return err
			}
			continue
		case e.Type() == fs.ModeSymlink:
			to, err := w.link(p)
			if err != nil {
				return err
			}
			en.sum <- result{line: "link " + to}
		case e.Type() != 0:
			return w.refuse(p, "is a device, a socket or a pipe", "take it out of the folder")
		default:
			lines <- en
			work <- en
			continue
		}
		lines <- en
	}
	return nil
}

func (w *walk) refuse(p, why, fix string) error {
	return &Error{filepath.Join(w.name, filepath.FromSlash(p)), why, fix}
}

// link is the target of a link that stays in the folder.
func (w *walk) link(p string) (string, error) {
	const fix = "name the folder that everything lies in, or copy the data with its links resolved: cp -rL"
	to, err := os.Readlink(filepath.Join(w.name, filepath.FromSlash(p)))
	if err != nil {
		return "", w.refuse(p, "cannot be read: "+cause(err), fix)
	}
	if filepath.IsAbs(to) {
		return "", w.refuse(p, "is a link to "+to+", out of the folder, where a run does not see it", fix)
	}
	// Root refuses what leaves it, by whatever way.
	if _, err := w.root.Stat(p); err != nil {
		return "", w.refuse(p, "is a link to "+to+" that leads nowhere or out of the folder, where a run does not see it", fix)
	}
	return filepath.ToSlash(to), nil
}

// open names one file below the root. It was a regular file when it was
// listed; Root does not let it become a link that leads elsewhere.
func (w *walk) open(p string, buf []byte) (string, error) {
	f, err := w.root.Open(p)
	if err != nil {
		return "", w.refuse(p, "cannot be read: "+cause(err), "make it readable, or copy the data to a folder of your own")
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", w.refuse(p, "changed while it was read", "let nothing write to the folder")
	}
	sum, err := w.file(filepath.Join(w.name, filepath.FromSlash(p)), f, buf)
	w.count()
	return sum, err
}

const bufferBytes = 256 << 10

func (w *walk) file(name string, f *os.File, buf []byte) (string, error) {
	h := sha256.New()
	for {
		if err := w.ctx.Err(); err != nil {
			return "", err
		}
		n, err := f.Read(buf)
		_, _ = h.Write(buf[:n]) // never fails
		w.read(int64(n))
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", unreadable(name, err)
		}
	}
}

func (w *walk) read(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes += n
	if w.cfg.Progress != nil {
		w.cfg.Progress(w.files, w.bytes)
	}
}

func (w *walk) count() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files++
}
