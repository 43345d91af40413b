package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"sync"
)

// Side is a checkpoint with the way to its files.
type Side struct {
	Checkpoint *Checkpoint
	Source     Source
	// Page is how many bytes are read at once, 0 means what is needed next.
	// Where a read is a request over a network, some MiB spare most of them.
	Page int
}

// Sweep reads the weights of a checkpoint, several at once.
type Sweep struct {
	Got  Side
	Base *Side // nil: scales are looked at and nothing is compared

	Names   *regexp.Regexp // only weights whose name it finds; nil means all
	Look    Look
	Workers int // 0 means one for each processor

	// Known are the layers of an earlier sweep that need not be read again.
	Known map[string]Layer
	// Keep is called with every layer that was read, one at a time. Its error
	// ends the sweep.
	Keep func(Layer) error
	// Progress, where it is set, is called with each piece of work done.
	Progress func(done, total int64, name string)
}

// job is one weight to read. Its base may be some rows of a stack of experts.
type job struct {
	got, base *Stored
	first     int // row of base
	part      bool
}

// Run reads the weights and returns them ranked, worst first. A weight that
// cannot be read is a layer with the verdict unread; errors are those of the
// sources, of Keep and of the context.
func (s *Sweep) Run(ctx context.Context) ([]Layer, error) {
	jobs, total := s.jobs()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		mu   sync.Mutex
		out  []Layer
		done int64
		wg   sync.WaitGroup
	)
	next := make(chan job)
	shared := newPages(max(s.Got.Page, 1))
	if s.Base != nil {
		shared = newPages(max(s.Got.Page, s.Base.Page, 1))
	}
	finish := func(l Layer, fresh bool) {
		mu.Lock()
		defer mu.Unlock()
		if fresh && s.Keep != nil {
			if err := s.Keep(l); err != nil {
				cancel(err)
				return
			}
		}
		out = append(out, l)
		if done += l.Bytes; s.Progress != nil {
			s.Progress(done, total, l.Name)
		}
	}
	workers := s.Workers
	if workers < 1 {
		workers = runtime.GOMAXPROCS(0)
	}
	for range min(workers, max(1, len(jobs))) {
		wg.Go(func() {
			files := openFiles{ctx: ctx, files: map[fileKey]File{}, pages: shared}
			defer files.close()
			for j := range next {
				l, err := s.layer(ctx, &files, j)
				if err != nil {
					cancel(err)
					return
				}
				finish(*l, true)
			}
		})
	}
	for _, j := range jobs {
		if l, ok := s.Known[j.got.Name]; ok {
			finish(l, false)
			continue
		}
		select {
		case next <- j:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("read weights: %w", err)
	}
	Rank(out)
	return out, nil
}

// jobs lists the weights to read, in the order of their names, and their bytes.
func (s *Sweep) jobs() (jobs []job, total int64) {
	base := map[string]*Stored{}
	if s.Base != nil {
		c := s.Base.Checkpoint.Census
		for i := range c.Stored {
			base[bareName(c.Stored[i].Name)] = &c.Stored[i]
		}
	}
	c := s.Got.Checkpoint.Census
	for i := range c.Stored {
		w := &c.Stored[i]
		if s.Names != nil && !s.Names.MatchString(w.Name) {
			continue
		}
		j := job{got: w, base: base[bareName(w.Name)]}
		if j.base == nil {
			j.stacked(base)
		}
		jobs = append(jobs, j)
		total += w.Bytes
	}
	return jobs, total
}

func bareName(name string) string { return strings.TrimSuffix(plainName(name), ".weight") }

// stacked finds the expert in a stack of all experts: bases of newer models
// hold gate and up of a layer as one tensor [experts, 2·inner, hidden], down as
// [experts, hidden, inner].
func (j *job) stacked(base map[string]*Stored) {
	_, expert, role := Place(j.got.Name)
	prefix, _, ok := strings.Cut(bareName(j.got.Name), ".experts.")
	if expert < 0 || !ok || len(j.got.Shape) != 2 {
		return
	}
	rows, parts, at := j.got.Shape[0], int64(1), int64(0)
	name := "down_proj"
	if role == "gate_proj" || role == "up_proj" {
		name, parts, at = "gate_up_proj", 2, int64(btoi(role == "up_proj"))
	} else if role != "down_proj" {
		return
	}
	s := base[prefix+".experts."+name]
	if s == nil || len(s.Shape) != 3 || int64(expert) >= s.Shape[0] || s.Shape[1] != parts*rows || s.Shape[2] != j.got.Shape[1] || formatBits(s.Format) < 16 {
		return
	}
	j.base, j.part, j.first = s, true, int((int64(expert)*parts+at)*rows)
}

// layer reads one weight. What is wrong with the weight is a verdict.
func (s *Sweep) layer(ctx context.Context, files *openFiles, j job) (*Layer, error) {
	l, err := s.read(ctx, files, j)
	if err == nil {
		l.File = s.Got.Checkpoint.FileOf(j.got.Weight)
		return l, nil
	}
	var bad *unreadError
	if ctx.Err() != nil || !errors.As(err, &bad) && !errors.Is(err, ErrShape) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return &Layer{
		Name: j.got.Name, File: s.Got.Checkpoint.FileOf(j.got.Weight), Format: j.got.Format, Shape: j.got.Shape,
		Params: j.got.Params, Bytes: j.got.Bytes, Verdict: "unread", Reasons: []string{err.Error()},
	}, nil
}

func (s *Sweep) read(ctx context.Context, files *openFiles, j job) (*Layer, error) {
	got, err := files.weight(&s.Got, j.got)
	if err != nil {
		return nil, err
	}
	if s.Base == nil {
		return s.Look.Scan(ctx, got)
	}
	if j.base == nil {
		l, err := s.Look.Scan(ctx, got)
		if err == nil {
			l.Reasons = append(l.Reasons, "the base has no weight of this name")
		}
		return l, err
	}
	base, err := files.weight(s.Base, j.base)
	if err != nil {
		return nil, fmt.Errorf("base: %w", err)
	}
	if j.part {
		base.first, base.Rows, base.per = j.first, got.Rows, got.Rows
	}
	return s.Look.Against(ctx, base, got)
}

type fileKey struct {
	side *Side
	name string
}

// openFiles are the files that one worker has open.
type openFiles struct {
	ctx   context.Context
	files map[fileKey]File
	pages *pages // shared by all workers
}

func (o *openFiles) close() {
	for _, f := range o.files {
		_ = f.Close()
	}
}

func (o *openFiles) weight(side *Side, s *Stored) (*Weight, error) {
	var failed error
	locate := func(t *Tensor) io.ReaderAt {
		key := fileKey{side, side.Checkpoint.FileOf(t)}
		f := o.files[key]
		if f == nil {
			var err error
			if f, err = side.Source.Open(o.ctx, key.name); err != nil {
				failed = err
				return failedReader{err}
			}
			o.files[key] = f
		}
		if side.Page > 0 {
			return &paged{o.pages, key, f}
		}
		return f
	}
	w, err := OpenWeight(s, locate)
	if failed != nil {
		return nil, failed
	}
	return w, err
}

type failedReader struct{ err error }

func (f failedReader) ReadAt([]byte, int64) (int, error) { return 0, f.err }
