package model

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// file puts a header in front of n bytes of data.
func file(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, n)...)
}

const two = `{"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}`

func read(b []byte, cfg HeaderConfig) (*Header, error) {
	return ReadHeader(bytes.NewReader(b), int64(len(b)), cfg)
}

func TestReadHeader(t *testing.T) {
	for _, header := range []string{two, two + "   ", strings.ReplaceAll(two, ":", " : "), strings.Replace(two, `"a"`, `"\u0061"`, 1)} {
		for _, prefetch := range []int{0, 3, 20, 1 << 20} {
			h, err := read(file(header, 16), HeaderConfig{Prefetch: prefetch})
			if err != nil {
				t.Fatal(err)
			}
			n := int64(8 + len(header))
			if h.Bytes != n || h.Metadata["format"] != "pt" || len(h.Tensors) != 2 {
				t.Fatalf("%+v", h)
			}
			a, b := h.Tensors[0], h.Tensors[1]
			if a.Name != "a" || a.DType != "F32" || len(a.Shape) != 0 || a.Begin != n || a.End != n+4 || a.Elements() != 1 {
				t.Errorf("a: %+v", a)
			}
			if b.Name != "b" || b.DType != "BF16" || !slices.Equal(b.Shape, []int64{2, 3}) || b.Bytes() != 12 || b.Elements() != 6 {
				t.Errorf("b: %+v", b)
			}
		}
	}
	// Empty tensors take no place, also next to others.
	h, err := read(file(`{"x":{"dtype":"F16","shape":[0,7],"data_offsets":[2,2]},"y":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"z":{"dtype":"F4","shape":[4],"data_offsets":[2,4]}}`, 4), HeaderConfig{})
	if err != nil || len(h.Tensors) != 3 {
		t.Errorf("%+v, %v", h, err)
	}
	if h, err := read(file("{}", 0), HeaderConfig{}); err != nil || len(h.Tensors) != 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestHostileHeaders(t *testing.T) {
	one := func(dtype, shape, offsets string) string {
		return fmt.Sprintf(`{"a":{"dtype":%q,"shape":%s,"data_offsets":%s}}`, dtype, shape, offsets)
	}
	pair := func(first, second string) string {
		return `{"a":{"dtype":"U8","shape":[4],"data_offsets":` + first + `},"b":{"dtype":"U8","shape":[4],"data_offsets":` + second + `}}`
	}
	claim := func(n uint64) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), "{}          "...) }
	tests := []struct {
		name string
		b    []byte
		want string // of the message
	}{
		{"nothing", nil, "0 bytes"},
		{"no length", []byte("abc"), "3 bytes"},
		{"2^63 long", claim(1 << 63), "more than"},
		{"100 MB long", claim(100_000_000), "more than"},
		{"longer than the file", claim(13), "in a file of 20"},
		{"empty", claim(0), "claims to be 0"},
		{"not JSON", file("not json", 0), "begin with {"},
		{"no UTF-8", file("{\"\xff\":1}", 0), "UTF-8"},
		{"cut off", file(`{"a":{"dtype":"U8","shape":[4`, 4), "ends where"},
		{"text behind it", file(two+"x", 16), "the end"},
		{"a list", file(`{"a":[1]}`, 0), "should be"},
		{"name twice", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "twice"},
		{"escaped name twice", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), "twice"},
		{"metadata twice", file(`{"__metadata__":{"x":"1","x":"2"}}`, 0), "twice"},
		{"field twice", file(`{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 4), "twice"},
		{"no name", file(`{"":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 4), "name of 0"},
		{"long name", file(`{"`+strings.Repeat("a", 5000)+`":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 4), "name of 5000"},
		{"unknown field", file(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1}}`, 4), "unknown field"},
		{"no offsets", file(`{"a":{"dtype":"U8","shape":[4]}}`, 4), "lacks"},
		{"one offset", file(one("U8", "[4]", "[0]"), 4), "lacks"},
		{"three offsets", file(one("U8", "[4]", "[0,4,4]"), 4), "more than 2"},
		{"unknown type", file(one("F7", "[4]", "[0,4]"), 4), "no possible size"},
		{"2^63 elements", file(one("U8", "[9223372036854775807,2]", "[0,4]"), 4), "no possible size"},
		{"2^64 as a number", file(one("U8", "[18446744073709551616]", "[0,4]"), 4), "2^63"},
		{"negative", file(one("U8", "[-4]", "[0,4]"), 4), "natural"},
		{"fraction", file(one("U8", "[4.0]", "[0,4]"), 4), "]"},
		{"leading zero", file(one("U8", "[04]", "[0,4]"), 4), "natural"},
		{"seventeen dimensions", file(one("U8", "[1"+strings.Repeat(",1", 16)+"]", "[0,1]"), 1), "more than 16"},
		{"half a byte", file(one("F4", "[3]", "[0,1]"), 1), "no possible size"},
		{"backwards", file(one("U8", "[4]", "[4,0]"), 4), "belong to no tensor"},
		{"too large", file(one("U8", "[4]", "[0,5]"), 5), "span 5"},
		{"beyond the file", file(one("U8", "[4]", "[0,4]"), 3), "the file has 3"},
		{"data left over", file(one("U8", "[4]", "[0,4]"), 5), "the file has 5"},
		{"overlap", file(pair("[0,4]", "[3,7]"), 7), "inside"},
		{"same place", file(pair("[0,4]", "[0,4]"), 4), "inside"},
		{"gap", file(pair("[0,4]", "[5,9]"), 9), "belong to no tensor"},
		{"control character", file("{\"a\x01\":1}", 0), "control"},
		{"bad escape", file(`{"\q":1}`, 0), "cannot be read"},
		{"open string", file(`{"abc`, 0), "inside of a string"},
		{"pickle in a zip", []byte("PK\x03\x04aaaaaaaaaaaa"), "pickle"},
		{"pickle", []byte("\x80\x02}q\x00X\x05\x00\x00\x00abcd"), "pickle"},
		{"GGUF", []byte("GGUF\x03\x00\x00\x00aaaa"), "GGUF"},
		{"LFS pointer", []byte("version https://git-lfs.github.com/spec/v1\n"), "LFS"},
		{"web page", []byte("<!doctype html><html></html>"), "web page"},
	}
	for _, tt := range tests {
		h, err := read(tt.b, HeaderConfig{Prefetch: 64})
		var bad *BadHeaderError
		if !errors.As(err, &bad) || bad.UserError() == "" || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v; want …%s…", tt.name, h, err, tt.want)
		}
	}
	if _, err := read(file(two, 16), HeaderConfig{MaxTensors: 1}); err == nil {
		t.Error("two tensors of one: no error")
	}
	if _, err := read(file(two, 16), HeaderConfig{MaxBytes: 20}); err == nil {
		t.Error("a header above the limit: no error")
	}
}

// failing is a reader that breaks.
type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, io.ErrClosedPipe }

func TestReadErrors(t *testing.T) {
	if _, err := ReadHeader(failing{}, 100, HeaderConfig{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error %v", err)
	}
	// The size that a server claims is larger than the file.
	b := file(two, 16)
	_, err := ReadHeader(bytes.NewReader(b[:40]), int64(len(b)), HeaderConfig{})
	var bad *BadHeaderError
	if !errors.As(err, &bad) || !strings.Contains(err.Error(), "ends after 40 bytes") {
		t.Errorf("error %v", err)
	}
}

// many is the header of a shard with n tensors.
func many(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"__metadata__":{"format":"pt"}`)
	for i := range n {
		fmt.Fprintf(&b, `,"model.layers.%d.mlp.experts.%d.down_proj.weight":{"dtype":"F8_E4M3","shape":[4,4],"data_offsets":[%d,%d]}`, i/256, i%256, 16*i, 16*i+16)
	}
	b.WriteString("}")
	return file(b.String(), 16*n)
}

func TestMemoryIsBounded(t *testing.T) {
	b := many(100_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := read(b, HeaderConfig{}); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 10*uint64(len(b)) {
		t.Errorf("%d bytes allocated for a file of %d", used, len(b))
	}
	// A header that only claims to be long costs nothing.
	runtime.ReadMemStats(&before)
	for range 100 {
		if _, err := ReadHeader(bytes.NewReader(append(binary.LittleEndian.AppendUint64(nil, 31<<20), '{')), 32<<20, HeaderConfig{}); err == nil {
			t.Fatal("no error")
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 100*3<<20 {
		t.Errorf("%d bytes allocated for claims", used)
	}
}

func FuzzReadHeader(f *testing.F) {
	f.Add([]byte(two), 16, 0)
	f.Add([]byte(`{"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}`), 2, 100)
	f.Add([]byte(`{"__metadata__":{"\u00e9":"\n"},"\"":{"shape":[],"data_offsets":[0,8],"dtype":"C64"}}  `), 8, 9)
	f.Fuzz(func(t *testing.T, header []byte, data, prefetch int) {
		if data < 0 || data > 1<<16 || len(header) > 1<<16 {
			return
		}
		b := file(string(header), data)
		h, err := read(b, HeaderConfig{Prefetch: prefetch})
		if err != nil {
			var bad *BadHeaderError
			if !errors.As(err, &bad) {
				t.Fatalf("error %v", err)
			}
			return
		}
		// What passes is JSON with the same content, and covers the data once.
		var m map[string]json.RawMessage
		if err := json.Unmarshal(header, &m); err != nil {
			t.Fatalf("it is no JSON: %v", err)
		}
		at := h.Bytes
		for _, tensor := range h.Tensors {
			if tensor.Begin != at || tensor.End < tensor.Begin {
				t.Fatalf("%+v begins at %d", tensor, at)
			}
			if _, ok := m[tensor.Name]; !ok {
				t.Fatalf("%q is not in the header", tensor.Name)
			}
			at = tensor.End
		}
		if at != int64(len(b)) || len(m) != len(h.Tensors)+min(1, len(m["__metadata__"])) {
			t.Fatalf("%d of %d bytes, %d of %d entries", at, len(b), len(h.Tensors), len(m))
		}
	})
}

func BenchmarkReadHeader(b *testing.B) {
	header := many(1000)
	b.SetBytes(int64(len(header) - 16*1000))
	for b.Loop() {
		if _, err := read(header, HeaderConfig{}); err != nil {
			b.Fatal(err)
		}
	}
}
