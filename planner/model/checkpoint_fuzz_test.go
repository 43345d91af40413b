package model

import (
	"bytes"
	"io"
	"testing"
)

// FuzzCheckpoint takes a file that passes as safetensors through everything that
// reads weights: nothing that shapes and names can say may break it.
func FuzzCheckpoint(f *testing.F) {
	for _, header := range []string{
		two,
		`{"a.weight":{"dtype":"U8","shape":[2,8],"data_offsets":[0,16]},"a.weight_scale":{"dtype":"F8_E4M3","shape":[2,1],"data_offsets":[16,18]},"a.weight_scale_2":{"dtype":"F32","shape":[],"data_offsets":[18,22]}}`,
		`{"a.weight":{"dtype":"F8_E4M3","shape":[3,4],"data_offsets":[0,12]},"a.weight_scale_inv":{"dtype":"BF16","shape":[1,1],"data_offsets":[12,14]}}`,
		`{"a_blocks":{"dtype":"U8","shape":[1,1,1,16],"data_offsets":[0,16]},"a_scales":{"dtype":"U8","shape":[1,1,1],"data_offsets":[16,17]}}`,
		`{"a.weight_packed":{"dtype":"U8","shape":[2,0],"data_offsets":[0,0]},"a.weight_scale":{"dtype":"U8","shape":[],"data_offsets":[0,1]},"a.qweight":{"dtype":"I32","shape":[],"data_offsets":[1,5]}}`,
		`{"a.weight":{"dtype":"F8_E4M3","shape":[2,2,2],"data_offsets":[0,8]},"a.weight_scale":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}`,
	} {
		f.Add([]byte(header), 22, []byte(`{"weight_map":{"a.weight":"m.safetensors"}}`))
	}
	f.Fuzz(func(t *testing.T, header []byte, data int, index []byte) {
		if data < 0 || data > 1<<12 || len(header) > 1<<12 {
			return
		}
		b := file(string(header), data)
		h, err := read(b, HeaderConfig{})
		if err != nil {
			return
		}
		if ix, err := ReadIndex(index); err == nil {
			ix.Check([]Shard{{File: ix.Files[0], Header: h}})
		}
		c := TakeCensus(h.Tensors)
		var stored int64
		for i := range c.Stored {
			s := &c.Stored[i]
			stored += s.Bytes
			if s.Params < 0 || s.Bytes < 0 {
				t.Fatalf("%+v", s)
			}
			w, err := OpenWeight(s, func(*Tensor) io.ReaderAt { return bytes.NewReader(b) })
			if err != nil {
				continue
			}
			if _, err := Against(t.Context(), w, w); err != nil {
				t.Fatalf("%s: %v", s.Name, err)
			}
			if _, err := (Look{Blocks: 2}).Scan(t.Context(), w); err != nil {
				t.Fatalf("%s: %v", s.Name, err)
			}
		}
		if stored > c.Bytes {
			t.Fatalf("%d bytes of weights in %d", stored, c.Bytes)
		}
	})
}
