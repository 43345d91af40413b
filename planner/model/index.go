package model

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MaxIndex bounds the size of model.safetensors.index.json, in bytes.
const MaxIndex = 64 << 20

// Index is model.safetensors.index.json: which file of a checkpoint holds which
// tensor.
type Index struct {
	TotalSize int64             // of all tensors as stated, 0 where it is not
	Files     []string          // sorted
	Tensors   map[string]string // name → file
}

// ReadIndex reads an index. Files have to lie beside it and to be safetensors:
// a pickle is refused. Its error is a [*BadHeaderError].
func ReadIndex(b []byte) (*Index, error) {
	bad := func(format string, args ...any) error {
		return &BadHeaderError{"index: " + fmt.Sprintf(format, args...)}
	}
	if len(b) > MaxIndex {
		return nil, bad("it has more than %d bytes", MaxIndex)
	}
	var raw struct {
		Metadata struct {
			TotalSize json.Number `json:"total_size"`
		} `json:"metadata"`
		Map map[string]string `json:"weight_map"`
	}
	if err := decodeObject(b, &raw); err != nil {
		return nil, bad("%v", err)
	}
	if len(raw.Map) == 0 {
		return nil, bad("it lists no tensor")
	}
	ix := &Index{Tensors: raw.Map}
	if f, err := raw.Metadata.TotalSize.Float64(); err == nil && f > 0 && f < 1<<62 {
		ix.TotalSize = int64(f)
	}
	files := map[string]bool{}
	for _, f := range raw.Map {
		if files[f] {
			continue
		}
		files[f] = true
		if f != strings.TrimLeft(f, ".") || strings.ContainsAny(f, "/\\\x00:") {
			return nil, bad("the file name %s leads outside of the checkpoint", short(f))
		}
		if !strings.HasSuffix(f, ".safetensors") {
			return nil, bad("the file %s is not safetensors", short(f))
		}
	}
	ix.Files = slices.Sorted(maps.Keys(files))
	return ix, nil
}

// Shard is one file of a checkpoint with its header.
type Shard struct {
	File   string
	Header *Header
}

// Problem is something about a checkpoint that cannot be right.
type Problem struct {
	Code    string `json:"code"` // snake_case, stable
	Where   string `json:"where"`
	Message string `json:"message"`
}

// Check compares the index with the headers of the files that were read.
func (ix *Index) Check(shards []Shard) []Problem {
	var problems []Problem
	report := func(code, where, format string, args ...any) {
		problems = append(problems, Problem{code, where, fmt.Sprintf(format, args...)})
	}
	found := map[string]string{}
	present := map[string]bool{}
	var bytes int64
	for _, s := range shards {
		present[s.File] = true
		for i := range s.Header.Tensors {
			t := &s.Header.Tensors[i]
			bytes += t.Bytes()
			if first, twice := found[t.Name]; twice {
				report("tensor_twice", t.Name, "it lies in %s and in %s", first, s.File)
				continue
			}
			found[t.Name] = s.File
			switch stated, listed := ix.Tensors[t.Name]; {
			case !listed:
				report("tensor_unlisted", t.Name, "it lies in %s and the index does not list it", s.File)
			case stated != s.File:
				report("tensor_moved", t.Name, "the index puts it in %s, it lies in %s", stated, s.File)
			}
		}
	}
	missing := 0
	for _, f := range ix.Files {
		if !present[f] {
			missing++
			report("shard_missing", f, "the index names it and it is not there")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ix.Tensors)) {
		if _, ok := found[name]; !ok && present[ix.Tensors[name]] {
			report("tensor_missing", name, "the index puts it in %s, where it is not", ix.Tensors[name])
		}
	}
	if missing == 0 && ix.TotalSize > 0 && ix.TotalSize != bytes {
		report("total_size", "metadata.total_size", "the index states %d bytes, the tensors have %d", ix.TotalSize, bytes)
	}
	return problems
}
