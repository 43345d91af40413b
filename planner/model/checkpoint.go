package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
)

// File is one file of a checkpoint. Reads may come from several goroutines.
type File interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Source opens the files of a checkpoint: a folder, or a hub by range requests.
// A file that is not there gives an error that is fs.ErrNotExist.
type Source interface {
	Open(ctx context.Context, name string) (File, error)
}

// Checkpoint is what the files of a model say, without a byte of the weights
// having been read.
type Checkpoint struct {
	Model    *Model
	Index    *Index // nil when all tensors lie in one file
	Shards   []Shard
	Census   *Census
	Problems []Problem // of the index, the census, and where the model does not fit

	file map[*Tensor]string
}

// CheckpointConfig says how to read a checkpoint. The zero value is ready.
type CheckpointConfig struct {
	ID      string // what the name claims
	Header  HeaderConfig
	Workers int // files read at once, 0 means 8
	// MaxTensors bounds all files together, 0 means two million.
	MaxTensors int
	// Files are the names of all files, where a listing is known. Without an
	// index the safetensors among them are read, instead of model.safetensors.
	Files []string
}

// ReadCheckpoint reads configuration, quantisation metadata, index and the
// header of every file. Files of other kinds, pickles among them, are never
// opened. A shard that is missing or damaged is a problem of the checkpoint;
// errors are those of the source, [*BadConfigError] and, where there is no file
// of weights at all, fs.ErrNotExist.
func ReadCheckpoint(ctx context.Context, src Source, cfg CheckpointConfig) (*Checkpoint, error) {
	config, err := readWhole(ctx, src, "config.json", MaxConfig)
	if err != nil {
		return nil, err
	}
	quant, err := readWhole(ctx, src, "hf_quant_config.json", MaxConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	c := &Checkpoint{file: map[*Tensor]string{}}
	if c.Model, err = Parse(Input{ID: cfg.ID, Config: config, HFQuant: quant}); err != nil {
		return nil, err
	}
	files := cfg.weights()
	switch index, err := readWhole(ctx, src, "model.safetensors.index.json", MaxIndex); {
	case err == nil:
		if c.Index, err = ReadIndex(index); err != nil {
			return nil, err
		}
		files = c.Index.Files
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := c.headers(ctx, src, files, cfg); err != nil {
		return nil, err
	}
	if c.Index != nil {
		known := c.Problems // a damaged file is not a missing one
		for _, p := range c.Index.Check(c.Shards) {
			if p.Code != "shard_missing" || !slices.ContainsFunc(known, func(k Problem) bool { return k.Where == p.Where }) {
				c.Problems = append(c.Problems, p)
			}
		}
	}
	return c, c.census(cfg)
}

// weights are the files to read where no index names them.
func (cfg *CheckpointConfig) weights() (files []string) {
	for _, f := range cfg.Files {
		if strings.HasSuffix(f, ".safetensors") && !strings.Contains(f, "/") {
			files = append(files, f)
		}
	}
	if len(files) == 0 || slices.Contains(files, "model.safetensors") {
		return []string{"model.safetensors"}
	}
	slices.Sort(files)
	return files
}

// headers reads the header of every file, several at once.
func (c *Checkpoint) headers(ctx context.Context, src Source, files []string, cfg CheckpointConfig) error {
	type result struct {
		header *Header
		err    error
	}
	results := make([]result, len(files))
	next := make(chan int)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	workers := cfg.Workers
	if workers < 1 {
		workers = 8
	}
	for range min(workers, len(files)) {
		wg.Go(func() {
			for i := range next {
				h, err := readShard(ctx, src, files[i], cfg.Header)
				results[i] = result{h, err}
				if err != nil && !damaged(err) {
					cancel()
				}
			}
		})
	}
	for i := range files {
		select {
		case next <- i:
		case <-ctx.Done():
			results[i].err = ctx.Err()
		}
	}
	close(next)
	wg.Wait()
	var first error
	for i, r := range results {
		switch {
		case r.err == nil:
			c.Shards = append(c.Shards, Shard{files[i], r.header})
		case errors.Is(r.err, fs.ErrNotExist) && c.Index != nil: // the index reports it
		case errors.Is(r.err, fs.ErrNotExist) && len(files) > 1:
			c.Problems = append(c.Problems, Problem{"shard_missing", files[i], "it is listed and cannot be had"})
		case damaged(r.err):
			var bad *BadHeaderError
			if !errors.As(r.err, &bad) {
				return r.err // no file of weights
			}
			c.Problems = append(c.Problems, Problem{"shard_damaged", files[i], bad.Why})
		case first == nil || errors.Is(first, context.Canceled):
			first = r.err
		}
	}
	return first
}

// damaged tells what is wrong with a checkpoint from what is wrong with reading.
func damaged(err error) bool {
	var bad *BadHeaderError
	return errors.As(err, &bad) || errors.Is(err, fs.ErrNotExist)
}

func readShard(ctx context.Context, src Source, name string, cfg HeaderConfig) (*Header, error) {
	f, err := src.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h, err := ReadHeader(f, f.Size(), cfg)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return h, nil
}

// census puts the tensors of all files together.
func (c *Checkpoint) census(cfg CheckpointConfig) error {
	n := 0
	for _, s := range c.Shards {
		n += len(s.Header.Tensors)
	}
	most := cfg.MaxTensors
	if most == 0 {
		most = 2_000_000
	}
	if n > most {
		return badHeader("the files list %d tensors together, more than %d", n, most)
	}
	all := make([]Tensor, 0, n)
	for _, s := range c.Shards {
		for _, t := range s.Header.Tensors {
			all = append(all, t)
			c.file[&all[len(all)-1]] = s.File
		}
	}
	c.Census = TakeCensus(all)
	if len(c.Problems) == 0 {
		// With files missing, everything else follows from that.
		c.Problems = append(slices.Clone(c.Census.Problems), c.Model.CheckTensors(c.Census)...)
	}
	return nil
}

// Complete tells whether all files of weights were there and whole, so that the
// census is that of the model.
func (c *Checkpoint) Complete() bool {
	return len(c.Shards) > 0 && !slices.ContainsFunc(c.Problems, func(p Problem) bool {
		return p.Code == "shard_missing" || p.Code == "shard_damaged"
	})
}

// FileOf is the file that a tensor of the census lies in.
func (c *Checkpoint) FileOf(t *Tensor) string { return c.file[t] }

func readWhole(ctx context.Context, src Source, name string, most int64) ([]byte, error) {
	f, err := src.Open(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer f.Close()
	n := f.Size()
	if n > most {
		return nil, &BadConfigError{name, fmt.Sprintf("it has %d bytes, more than %d", n, most)}
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, n))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// Folder is a checkpoint on disk. Only regular files directly in the folder are
// opened; symbolic links are followed as the hub's own cache needs it, whose
// snapshots are links into a folder beside them.
type Folder string

// Open implements [Source].
func (d Folder) Open(_ context.Context, name string) (File, error) {
	if name == "" || strings.ContainsAny(name, "/\\\x00") || slices.Contains([]string{".", ".."}, name) {
		return nil, fmt.Errorf("open file of checkpoint: %q is no file name", name)
	}
	path := string(d) + string(os.PathSeparator) + name
	// Stat first: opening a pipe would wait for its writer.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("open %s: it is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return &diskFile{f, info.Size()}, nil
}

type diskFile struct {
	*os.File
	size int64
}

func (f *diskFile) Size() int64 { return f.size }
