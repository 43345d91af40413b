package model

import (
	"io"
	"slices"
	"sync"
)

// pages keeps the parts of files that were read last, in pieces of one size, so
// that many small tensors side by side cost one read. It is safe for concurrent
// use: a page that several want is read once.
type pages struct {
	size int64
	most int

	mu    sync.Mutex
	pages map[pageKey]*page
	order []pageKey // oldest first
}

type pageKey struct {
	file fileKey
	n    int64
}

type page struct {
	once sync.Once
	buf  []byte
	err  error
}

// maxPages bounds the pages that are kept; with pages of 8 MiB it is 112 MiB.
const maxPages = 14

func newPages(size int) *pages {
	return &pages{size: int64(size), most: maxPages, pages: map[pageKey]*page{}}
}

// get returns a page of a file, which r reads if nobody has before.
func (p *pages) get(key pageKey, r File) *page {
	p.mu.Lock()
	g := p.pages[key]
	if g == nil {
		g = &page{}
		p.pages[key] = g
		if len(p.order) == p.most {
			delete(p.pages, p.order[0])
			p.order = p.order[1:]
		}
	} else {
		p.order = slices.DeleteFunc(p.order, func(k pageKey) bool { return k == key })
	}
	p.order = append(p.order, key)
	p.mu.Unlock()
	g.once.Do(func() {
		at := key.n * p.size
		g.buf = make([]byte, max(0, min(p.size, r.Size()-at)))
		var n int
		if n, g.err = r.ReadAt(g.buf, at); n == len(g.buf) {
			g.err = nil
		}
		g.buf = g.buf[:n]
	})
	if g.err != nil {
		p.drop(key, g)
	}
	return g
}

// drop forgets a page that could not be read.
func (p *pages) drop(key pageKey, g *page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pages[key] == g {
		delete(p.pages, key)
		p.order = slices.DeleteFunc(p.order, func(k pageKey) bool { return k == key })
	}
}

// paged reads a file by pages.
type paged struct {
	p    *pages
	key  fileKey
	file File
}

// ReadAt implements [io.ReaderAt].
func (r *paged) ReadAt(b []byte, at int64) (int, error) {
	n := 0
	for n < len(b) {
		from := at + int64(n)
		if from < 0 || from >= r.file.Size() {
			return n, io.EOF
		}
		g := r.p.get(pageKey{r.key, from / r.p.size}, r.file)
		inside := from % r.p.size
		if inside >= int64(len(g.buf)) {
			if g.err != nil {
				return n, g.err
			}
			return n, io.EOF
		}
		n += copy(b[n:], g.buf[inside:])
	}
	return n, nil
}
