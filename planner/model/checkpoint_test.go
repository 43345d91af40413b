package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// encode writes a safetensors file of zeros with the tensors.
func encode(t testing.TB, tensors []Tensor) []byte {
	t.Helper()
	header := map[string]any{}
	var at int64
	for _, x := range tensors {
		shape := x.Shape
		if shape == nil {
			shape = []int64{}
		}
		header[x.Name] = map[string]any{"dtype": x.DType, "shape": shape, "data_offsets": []int64{at, at + x.Bytes()}}
		at += x.Bytes()
	}
	b, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	return file(string(b), int(at))
}

const fp4 = tiny + `,"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4","ignore":["lm_head"]}}`

// write puts a checkpoint of several shards into a folder.
func write(t testing.TB, config string, shards int) (dir string, m *Model) {
	t.Helper()
	dir = t.TempDir()
	m, err := Parse(Input{Config: []byte(config)})
	if err != nil {
		t.Fatal(err)
	}
	tensors := tensorsOf(m)
	files := map[string][]byte{"config.json": []byte(config)}
	if shards == 1 {
		files["model.safetensors"] = encode(t, tensors)
	} else {
		index := map[string]string{}
		for i := range shards {
			name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards)
			part := tensors[len(tensors)*i/shards : len(tensors)*(i+1)/shards]
			for _, x := range part {
				index[x.Name] = name
			}
			files[name] = encode(t, part)
		}
		files["model.safetensors.index.json"], err = json.Marshal(map[string]any{
			"metadata": map[string]any{"total_size": tensors[len(tensors)-1].End}, "weight_map": index,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, m
}

func problemCodes(ps []Problem) (out []string) {
	for _, p := range ps {
		if !slices.Contains(out, p.Code) {
			out = append(out, p.Code)
		}
	}
	return out
}

func TestReadCheckpoint(t *testing.T) {
	for _, shards := range []int{1, 5} {
		dir, m := write(t, fp4, shards)
		c, err := ReadCheckpoint(t.Context(), Folder(dir), CheckpointConfig{ID: "a/b-NVFP4"})
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Problems) > 0 || len(c.Shards) != shards || c.Census.Params != m.Params.Total || c.Census.Bytes != m.Bytes {
			t.Errorf("%d shards: %+v, %d parameters of %d", len(c.Shards), c.Problems, c.Census.Params, m.Params.Total)
		}
		for i := range c.Census.Stored {
			s := &c.Census.Stored[i]
			path := filepath.Join(dir, c.FileOf(s.Weight))
			b, err := os.ReadFile(path)
			if err != nil || s.Weight.End > int64(len(b)) {
				t.Fatalf("%s lies in %s: %v", s.Name, path, err)
			}
		}
	}
}

func TestDamagedCheckpoints(t *testing.T) {
	shard := func(dir string, i int) string {
		return filepath.Join(dir, fmt.Sprintf("model-%05d-of-00004.safetensors", i))
	}
	tests := []struct {
		name string
		hurt func(t *testing.T, dir string) error
		want []string
	}{
		{"a shard is missing", func(_ *testing.T, dir string) error { return os.Remove(shard(dir, 2)) }, []string{"shard_missing"}},
		{"a shard is cut off", func(_ *testing.T, dir string) error { return os.Truncate(shard(dir, 3), 3000) }, []string{"shard_damaged"}},
		{"a shard is another's copy", func(_ *testing.T, dir string) error {
			b, err := os.ReadFile(shard(dir, 1))
			return errors.Join(err, os.WriteFile(shard(dir, 2), b, 0o600))
		}, []string{"tensor_twice", "tensor_missing", "total_size"}},
		{"a shard is a pickle", func(_ *testing.T, dir string) error {
			return os.WriteFile(shard(dir, 1), []byte("PK\x03\x04................"), 0o600)
		}, []string{"shard_damaged"}},
		{"the configuration is another model's", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "config.json"), []byte(known[1].config), 0o600)
		}, []string{"parameters_differ"}},
		{"the metadata are missing", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "config.json"), []byte(tiny+"}"), 0o600)
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, _ := write(t, fp4, 4)
			if err := tt.hurt(t, dir); err != nil {
				t.Fatal(err)
			}
			c, err := ReadCheckpoint(t.Context(), Folder(dir), CheckpointConfig{})
			if err != nil {
				t.Fatal(err)
			}
			if got := problemCodes(c.Problems); !slices.Equal(got, tt.want) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestCheckpointsThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadCheckpoint(t.Context(), Folder(dir), CheckpointConfig{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(tiny+"}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadCheckpoint(t.Context(), Folder(dir), CheckpointConfig{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no weights: %v", err)
	}
	for _, name := range []string{"", "..", "../config.json", "a/b", "a\x00"} {
		if _, err := Folder(dir).Open(t.Context(), name); err == nil {
			t.Errorf("opened %q", name)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "model.safetensors"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadCheckpoint(t.Context(), Folder(dir), CheckpointConfig{}); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder for a file: %v", err)
	}
	whole, _ := write(t, fp4, 4)
	if _, err := ReadCheckpoint(t.Context(), Folder(whole), CheckpointConfig{MaxTensors: 10}); err == nil {
		t.Error("more tensors than allowed: no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ReadCheckpoint(ctx, &slow{dir: Folder(whole)}, CheckpointConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := ReadCheckpoint(t.Context(), &slow{dir: Folder(whole), fail: "model-00003-of-00004.safetensors"}, CheckpointConfig{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that breaks: %v", err)
	}
}

// slow is a folder behind a network: every read takes a while and is counted.
type slow struct {
	dir   Folder
	delay time.Duration
	fail  string
	reads atomic.Int64
	bytes atomic.Int64
}

func (s *slow) Open(ctx context.Context, name string) (File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if name == s.fail {
		return nil, fmt.Errorf("open %s: %w", name, io.ErrUnexpectedEOF)
	}
	f, err := s.dir.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &slowFile{f, s}, nil
}

type slowFile struct {
	File
	s *slow
}

func (f *slowFile) ReadAt(b []byte, at int64) (int, error) {
	f.s.reads.Add(1)
	f.s.bytes.Add(int64(len(b)))
	time.Sleep(f.s.delay)
	return f.File.ReadAt(b, at)
}

// TestTraffic reads a checkpoint of 40 shards over a slow link: the headers and
// nothing of the weights, with several requests under way at once.
func TestTraffic(t *testing.T) {
	config := strings.Replace(fp4, `"num_hidden_layers":2`, `"num_hidden_layers":20`, 1)
	dir, m := write(t, config, 40)
	s := &slow{dir: Folder(dir), delay: 2 * time.Millisecond}
	c, err := ReadCheckpoint(t.Context(), s, CheckpointConfig{Header: HeaderConfig{Prefetch: 4 << 10}})
	if err != nil || len(c.Problems) > 0 {
		t.Fatalf("%v, %+v", err, c.Problems)
	}
	if got := s.bytes.Load(); got > 400<<10 || got > m.Bytes/10 {
		t.Errorf("%d bytes read of a checkpoint of %d", got, m.Bytes)
	}
	if got := s.reads.Load(); got > 60 {
		t.Errorf("%d requests for 40 shards", got)
	}
	t.Logf("%d requests, %d bytes of %d", s.reads.Load(), s.bytes.Load(), m.Bytes)
}

func BenchmarkReadCheckpoint(b *testing.B) {
	config := strings.Replace(fp4, `"num_hidden_layers":2`, `"num_hidden_layers":20`, 1)
	dir, _ := write(b, config, 40)
	for b.Loop() {
		if _, err := ReadCheckpoint(b.Context(), Folder(dir), CheckpointConfig{}); err != nil {
			b.Fatal(err)
		}
	}
}
