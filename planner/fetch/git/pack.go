package git

import (
	"crypto"
	"errors"
	"fmt"
	gohash "hash"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/hash"
)

const (
	maxMetaObject = 64 << 20  // one commit, tree or tag, in bytes
	maxPackCount  = 8_000_000 // objects in a pack of any depth
)

// packed is one entry of a pack while it is being read.
type packed struct {
	hash     plumbing.Hash
	typ      plumbing.ObjectType // of the resolved object once hash is set
	offset   int64               // in the pack
	at, size int64               // in the spool: content, or the delta until it is resolved
	crc      uint32
	delta    bool
	children []int32
}

// packReader turns a pack stream into a filled spool. go-git's own parser
// holds every object in memory, inflates it up to three times and learns its
// size too late; this one is built on the same scanner and delta code, refuses
// by declared size before it inflates, and inflates once.
// The format is git's Documentation/gitformat-pack.txt.
type packReader struct {
	spool     *spool
	fileBytes int64
	maxCount  int
	onObject  func(done, total int) // may be nil

	entries  []packed
	byOffset map[int64]int32
	waiting  map[plumbing.Hash][]int32 // REF_DELTA children by base
	hasher   gohash.Hash
	dropped  int64 // inflated bytes that were hashed and not kept
}

// read consumes one whole pack. An error is a *LimitError, a *damagedError
// (the stream is not a sound pack), or ours.
func (p *packReader) read(r io.Reader) (checksum plumbing.Hash, err error) {
	p.byOffset = map[int64]int32{}
	p.waiting = map[plumbing.Hash][]int32{}
	p.hasher = hash.New(crypto.SHA1)
	sc := packfile.NewScanner(struct{ io.Reader }{r}) // never seeks
	_, count, err := sc.Header()
	if err != nil {
		return checksum, damaged("read header", err)
	}
	if int64(count) > int64(p.maxCount) {
		return checksum, &LimitError{Cap: CapFiles, Limit: int64(p.maxCount), Got: int64(count), What: "objects in the pack"}
	}
	for i := range int(count) {
		if err := p.next(sc); err != nil {
			return checksum, err
		}
		if p.onObject != nil {
			p.onObject(i+1, int(count))
		}
	}
	if checksum, err = sc.Checksum(); err != nil {
		return checksum, damaged("read checksum", err)
	}
	return checksum, p.resolve()
}

// damaged marks an error of the scanner, unless it came out of a sink of ours.
func damaged(what string, err error) error {
	var limit *LimitError
	if errors.As(err, &limit) {
		return limit
	}
	var own *sinkError
	if errors.As(err, &own) {
		return own.err
	}
	return &damagedError{fmt.Errorf("%s: %w", what, err)}
}

// sinkError marks an error of writing, not of the pack.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }

// next reads one entry.
func (p *packReader) next(sc *packfile.Scanner) error {
	h, err := sc.NextObjectHeader()
	if err != nil {
		return damaged("read object header", err)
	}
	if err := p.admit(h.Type, h.Length); err != nil {
		return err
	}
	e := packed{typ: h.Type, offset: h.Offset, size: h.Length, delta: h.Type.IsDelta()}
	keep := e.delta || !p.tooLarge(h.Type, h.Length)
	e.at = p.spool.len()
	if !e.delta {
		p.startHash(h.Type, h.Length)
	}
	n, crc, err := sc.NextObject(entrySink{p, keep, !e.delta})
	if err != nil {
		return damaged("inflate object", err)
	}
	if n != h.Length {
		return &damagedError{fmt.Errorf("object at %d has %d bytes, its header says %d", h.Offset, n, h.Length)}
	}
	e.crc = crc
	self := int32(len(p.entries))
	if e.delta {
		if err := p.hang(h, self); err != nil {
			return err
		}
	} else if e.hash, err = p.sumHash(); err != nil {
		return err
	}
	p.entries = append(p.entries, e)
	p.byOffset[h.Offset] = self
	if !e.delta {
		p.store(&p.entries[self], keep)
	}
	return nil
}

// admit refuses by what an entry's header declares.
func (p *packReader) admit(t plumbing.ObjectType, n int64) error {
	switch t {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.TagObject:
		if n > maxMetaObject {
			return &LimitError{Cap: CapFile, Limit: maxMetaObject, Got: n, What: "one " + t.String() + " object"}
		}
	case plumbing.BlobObject, plumbing.OFSDeltaObject, plumbing.REFDeltaObject:
		if n > p.spool.limit {
			return &LimitError{Cap: CapFile, Limit: p.fileBytes, Got: n}
		}
	default:
		return &damagedError{fmt.Errorf("object of type %d", t)}
	}
	return nil
}

func (p *packReader) tooLarge(t plumbing.ObjectType, n int64) bool {
	return t == plumbing.BlobObject && n > p.fileBytes
}

// hang ties a delta to its base.
func (p *packReader) hang(h *packfile.ObjectHeader, self int32) error {
	if h.Type == plumbing.REFDeltaObject {
		p.waiting[h.Reference] = append(p.waiting[h.Reference], self)
		return nil
	}
	base, ok := p.byOffset[h.OffsetReference]
	if !ok {
		return &damagedError{fmt.Errorf("delta at %d has no base at %d", h.Offset, h.OffsetReference)}
	}
	p.entries[base].children = append(p.entries[base].children, self)
	return nil
}

// store makes a resolved entry findable.
func (p *packReader) store(e *packed, kept bool) {
	if kept {
		p.spool.index[e.hash] = spooled{e.at, e.size, e.typ}
	} else {
		p.spool.over[e.hash] = e.size
	}
}

// entrySink receives one entry's inflated bytes.
type entrySink struct {
	p          *packReader
	keep, hash bool
}

func (s entrySink) Write(b []byte) (int, error) {
	if s.hash {
		s.p.hasher.Write(b)
	}
	if !s.keep {
		s.p.dropped += int64(len(b))
		if s.p.dropped > s.p.spool.limit {
			return 0, &LimitError{Cap: CapTotal, Limit: s.p.spool.total, What: "files over the cap of one file"}
		}
		return len(b), nil
	}
	n, err := s.p.spool.Write(b)
	if err != nil {
		err = &sinkError{err}
	}
	return n, err
}

func (p *packReader) startHash(t plumbing.ObjectType, n int64) {
	p.hasher.Reset()
	fmt.Fprintf(p.hasher, "%s %d\x00", t, n)
}

// sumHash ends a hash. The hash is go-git's SHA-1 with detection of collision
// attacks (Stevens and Shumow, 2017); an object that carries one is refused.
func (p *packReader) sumHash() (h plumbing.Hash, err error) {
	type detecting interface {
		CollisionResistantSum([]byte) ([]byte, bool)
	}
	if d, ok := p.hasher.(detecting); ok {
		sum, attack := d.CollisionResistantSum(nil)
		if attack {
			return h, &damagedError{fmt.Errorf("object %x carries a SHA-1 collision attack", sum)}
		}
		copy(h[:], sum)
		return h, nil
	}
	copy(h[:], p.hasher.Sum(nil))
	return h, nil
}

// resolve applies all deltas, bases first. It holds one base, one delta and
// one result in memory at a time.
func (p *packReader) resolve() error {
	var queue []int32
	for i := range p.entries {
		if e := &p.entries[i]; !e.delta {
			p.adopt(e)
			if len(e.children) > 0 {
				queue = append(queue, int32(i))
			}
		}
	}
	var base, delta []byte
	for len(queue) > 0 {
		b := &p.entries[queue[len(queue)-1]]
		queue = queue[:len(queue)-1]
		if _, ok := p.spool.index[b.hash]; !ok {
			return &LimitError{Cap: CapFile, Limit: p.fileBytes, Got: b.size}
		}
		var err error
		if base, err = p.spool.read(base, b.at, b.size); err != nil {
			return err
		}
		for _, i := range b.children {
			e := &p.entries[i]
			if delta, err = p.spool.read(delta, e.at, e.size); err != nil {
				return err
			}
			if err := p.apply(e, b.typ, base, delta); err != nil {
				return err
			}
			p.adopt(e)
			if len(e.children) > 0 {
				queue = append(queue, i)
			}
		}
	}
	for i := range p.entries {
		if p.entries[i].delta {
			return &damagedError{fmt.Errorf("delta at %d has no base in the pack", p.entries[i].offset)}
		}
	}
	return nil
}

// adopt gives a resolved entry the REF_DELTA children that waited for it.
func (p *packReader) adopt(e *packed) {
	if kids, ok := p.waiting[e.hash]; ok {
		e.children = append(e.children, kids...)
		delete(p.waiting, e.hash)
	}
}

// apply resolves one delta against its base.
func (p *packReader) apply(e *packed, t plumbing.ObjectType, base, delta []byte) error {
	n, err := deltaResultSize(delta)
	if err != nil {
		return &damagedError{err}
	}
	if err := p.admit(t, n); err != nil {
		return err
	}
	if p.tooLarge(t, n) {
		return &LimitError{Cap: CapFile, Limit: p.fileBytes, Got: n}
	}
	out, err := packfile.PatchDelta(base, delta)
	if err != nil {
		return &damagedError{fmt.Errorf("apply delta at %d: %w", e.offset, err)}
	}
	e.typ, e.delta, e.at, e.size = t, false, p.spool.len(), int64(len(out))
	p.startHash(t, e.size)
	p.hasher.Write(out)
	if e.hash, err = p.sumHash(); err != nil {
		return err
	}
	if _, err := p.spool.Write(out); err != nil {
		return err
	}
	p.store(e, true)
	return nil
}

// deltaResultSize reads the second of the two sizes that open a delta.
func deltaResultSize(delta []byte) (int64, error) {
	var n uint64
	for range 2 {
		n = 0
		for shift := uint(0); ; shift += 7 {
			if len(delta) == 0 || shift > 56 {
				return 0, errors.New("malformed delta header")
			}
			c := delta[0]
			delta = delta[1:]
			n |= uint64(c&0x7f) << shift
			if c&0x80 == 0 {
				break
			}
		}
	}
	return int64(n), nil
}

// writeIndex writes the version 2 index of the pack that was read.
func (p *packReader) writeIndex(w io.Writer, checksum plumbing.Hash) error {
	iw := new(idxfile.Writer)
	if err := iw.OnHeader(uint32(len(p.entries))); err != nil {
		return err
	}
	for i := range p.entries {
		e := &p.entries[i]
		iw.Add(e.hash, uint64(e.offset), e.crc)
	}
	if err := iw.OnFooter(checksum); err != nil {
		return err
	}
	idx, err := iw.Index()
	if err != nil {
		return err
	}
	_, err = idxfile.NewEncoder(w).Encode(idx)
	return err
}
