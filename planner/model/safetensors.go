package model

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
)

// HeaderConfig bounds the reading of a safetensors header. The zero value is
// what callers want.
type HeaderConfig struct {
	// MaxBytes is the longest header that is read, 0 means 32 MiB: half a
	// million tensors. The format itself allows 100 MB.
	MaxBytes int64
	// MaxTensors is the most tensors, 0 means a million.
	MaxTensors int
	// Prefetch is how much is read at once at the beginning of the file. Where a
	// read is a request over a network, 16 KiB spare most files the second one.
	// 0 means just the length of the header.
	Prefetch int
}

// Tensor is one entry of a header, checked against the file.
type Tensor struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"` // as in the file: BF16, F8_E4M3, U8, …
	Shape []int64 `json:"shape"` // empty for a scalar
	// Begin and End are offsets in the file, not in its data part.
	Begin int64 `json:"begin"`
	End   int64 `json:"end"`
}

// Elements is the number of stored elements.
func (t *Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Bytes is the size in the file.
func (t *Tensor) Bytes() int64 { return t.End - t.Begin }

// Header is what stands at the beginning of a safetensors file.
type Header struct {
	Tensors  []Tensor // in the order of their data
	Metadata map[string]string
	Bytes    int64 // of the header, with its length
}

// BadHeaderError says why a file is not taken for what it claims to be.
type BadHeaderError struct{ Why string }

func (e *BadHeaderError) Error() string { return "safetensors header: " + e.Why }

// UserError is what the user can do.
func (e *BadHeaderError) UserError() string {
	return "download the file again, and compare its size and SHA-256 with those that the hub lists"
}

func badHeader(format string, args ...any) error {
	return &BadHeaderError{fmt.Sprintf(format, args...)}
}

// ReadHeader reads and checks the header of a safetensors file of size bytes
// (huggingface/safetensors README.md, "Format"): tensors lie side by side in
// the file without gap or overlap, each as large as its shape and type say, and
// no name occurs twice. Memory is bounded by the configuration, whatever the
// header claims. Errors: [*BadHeaderError], and those of r.
func ReadHeader(r io.ReaderAt, size int64, cfg HeaderConfig) (*Header, error) {
	most := cmp.Or(cfg.MaxBytes, 32<<20)
	head := make([]byte, min(max(int64(cfg.Prefetch), 8), most+8, max(size, 0)))
	if err := readAt(r, head, 0); err != nil {
		return nil, fmt.Errorf("read safetensors header: %w", err)
	}
	if err := foreign(head); err != nil {
		return nil, err
	}
	if len(head) < 8 {
		return nil, badHeader("the file has only %d bytes", size)
	}
	n := binary.LittleEndian.Uint64(head)
	switch {
	case n > uint64(most):
		return nil, badHeader("it claims to be %d bytes long, more than %d", n, most)
	case n < 2 || int64(n) > size-8:
		return nil, badHeader("it claims to be %d bytes long in a file of %d", n, size)
	}
	// The rest comes in growing pieces, so that a header that only claims to be
	// long does not cost its length in memory.
	for have := len(head); have < int(n)+8; have = len(head) {
		piece := min(int(n)+8-have, max(1<<20, have))
		head = append(head, make([]byte, piece)...)
		if err := readAt(r, head[have:], int64(have)); err != nil {
			return nil, fmt.Errorf("read safetensors header: %w", err)
		}
	}
	p := headerParser{text: head[8 : 8+n], most: cmp.Or(cfg.MaxTensors, 1_000_000)}
	h, err := p.parse()
	if err != nil {
		return nil, err
	}
	h.Bytes = int64(n) + 8
	return h, h.place(size)
}

// readAt fills b. A file that ends before is damaged, not unreadable.
func readAt(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return badHeader("the file ends after %d bytes", at+int64(n))
	}
	return err
}

// foreign recognises files of other kinds that carry the wrong name.
func foreign(head []byte) error {
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), len(head) > 2 && head[0] == 0x80 && head[1] >= 2 && head[1] <= 5 && (head[2] == '}' || head[2] == '\x8a' || head[2] == 0x95 || head[2] == 'c'):
		return badHeader("the file is a pickle of PyTorch, which runs code when it is loaded and is never opened")
	case bytes.HasPrefix(head, []byte("GGUF")):
		return badHeader("the file is a GGUF")
	case bytes.HasPrefix(head, []byte("version https://git-lfs")):
		return badHeader("the file is a pointer of Git LFS; its content was not downloaded")
	case bytes.HasPrefix(head, []byte("<!")), bytes.HasPrefix(head, []byte("<html")):
		return badHeader("the file is a web page")
	}
	return nil
}

// place checks the offsets against the file and makes them absolute.
func (h *Header) place(size int64) error {
	slices.SortFunc(h.Tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
	})
	var at int64
	for i := range h.Tensors {
		t := &h.Tensors[i]
		switch {
		case t.Begin < at:
			return badHeader("%s begins at %d, inside of the tensor before it", short(t.Name), t.Begin)
		case t.Begin > at:
			return badHeader("there are %d bytes before %s that belong to no tensor", t.Begin-at, short(t.Name))
		}
		want, ok := tensorBytes(t.DType, t.Shape)
		if !ok {
			return badHeader("%s of %s %v has no possible size", short(t.Name), short(t.DType), t.Shape)
		}
		if t.End < t.Begin || uint64(t.End-t.Begin) != want {
			return badHeader("%s of %s %v takes %d bytes and its offsets span %d", short(t.Name), short(t.DType), t.Shape, want, t.End-t.Begin)
		}
		at = t.End
	}
	if data := size - h.Bytes; at != data {
		return badHeader("the tensors take %d bytes and the file has %d for them", at, data)
	}
	for i := range h.Tensors {
		h.Tensors[i].Begin += h.Bytes
		h.Tensors[i].End += h.Bytes
	}
	return nil
}

// dtypeBits are the element sizes (huggingface/safetensors
// safetensors/src/tensor.rs, Dtype::bitsize).
var dtypeBits = map[string]uint64{
	"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
	"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
	"I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}

// tensorBytes is the size of a tensor; false when the type is unknown, the
// product overflows, or the elements do not fill whole bytes.
func tensorBytes(dtype string, shape []int64) (uint64, bool) {
	n, ok := dtypeBits[dtype]
	if !ok {
		return 0, false
	}
	for _, d := range shape {
		hi, lo := bits.Mul64(n, uint64(d))
		if d < 0 || hi != 0 {
			return 0, false
		}
		n = lo
	}
	return n / 8, n%8 == 0
}

// short makes a name from a file fit for a message.
func short(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Sprintf("%q", s)
}
