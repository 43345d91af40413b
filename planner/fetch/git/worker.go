package git

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
)

// The operations of a worker.
const (
	opUnpack  = "unpack"  // a pack on the stream, to files
	opFind    = "find"    // commits of a pack whose id starts with Want
	opResolve = "resolve" // a ref of a repository on disk
	opExtract = "extract" // a commit of a repository on disk, to files
)

// workRequest is one piece of work on bytes that nobody vouches for. For
// opUnpack and opFind the pack follows it on the stream.
type workRequest struct {
	Op     string      `json:"op"`
	Dir    string      `json:"dir"`              // the stage: the only folder that is written
	Prefix string      `json:"prefix,omitempty"` // below Dir/tree
	Want   string      `json:"want,omitempty"`   // id of a commit or tag, or its first digits
	Ref    string      `json:"ref,omitempty"`
	Repo   *folderRepo `json:"repo,omitempty"`
	Limits Limits      `json:"limits"`
	Deep   bool        `json:"deep,omitempty"` // the pack holds history
	Keep   bool        `json:"keep,omitempty"` // leave pack and index in Dir, and no files

	stage  *stage // of Dir
	hangUp func() // ends the pack's stream early; may be nil
}

// workResult is what came of it.
type workResult struct {
	Commit  string     `json:"commit,omitempty"`
	Want    string     `json:"want,omitempty"`
	Ref     string     `json:"ref,omitempty"`
	Date    time.Time  `json:"date,omitzero"`
	Tree    treeResult `json:"tree"`
	Matches []string   `json:"matches,omitempty"`
	Dirty   bool       `json:"dirty,omitempty"`
	Plain   bool       `json:"plain,omitempty"`
	Pack    string     `json:"pack,omitempty"` // checksum of the kept pack
}

// message is one line of the child's output.
type message struct {
	Progress *Progress   `json:"progress,omitempty"`
	Result   *workResult `json:"result,omitempty"`
	Error    *wireError  `json:"error,omitempty"`
}

// perform does the work in this process.
func perform(ctx context.Context, req *workRequest, pack io.Reader, report func(Progress)) (*workResult, error) {
	switch req.Op {
	case opUnpack:
		return unpackPack(ctx, req, pack, report)
	case opFind:
		return findInPack(ctx, req, pack, report)
	case opResolve:
		return req.Repo.resolve(req.Ref)
	case opExtract:
		return req.Repo.extract(ctx, req, report)
	}
	return nil, fmt.Errorf("unknown operation %q", req.Op)
}

// spoolLimit bounds what a pack may inflate to. Deltas are spooled beside
// their results, and history beside the commit.
func (r *workRequest) spoolLimit() int64 {
	n := 2 * r.Limits.TotalBytes
	if r.Deep {
		n *= 4
	}
	return n + 16<<20
}

func (r *workRequest) reader(s *spool, report func(Progress)) *packReader {
	p := &packReader{spool: s, fileBytes: r.Limits.FileBytes, maxCount: 8*r.Limits.Files + 1000}
	if r.Deep {
		p.maxCount = maxPackCount
	}
	every := 1
	p.onObject = func(done, total int) {
		if done%every == 0 || done == total {
			report(Progress{Objects: done, Total: total})
		}
		every = max(1, total/200)
	}
	return p
}

// interruptible ends a stream when ctx does.
type interruptible struct {
	ctx context.Context
	io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// load spools a pack.
func (r *workRequest) load(ctx context.Context, pack io.Reader, report func(Progress)) (*spool, *packReader, plumbing.Hash, error) {
	s, err := newSpool(filepath.Join(r.Dir, "spool"), r.spoolLimit(), r.Limits.TotalBytes)
	if err != nil {
		return nil, nil, plumbing.ZeroHash, err
	}
	p := r.reader(s, report)
	sum, err := p.read(interruptible{ctx, pack})
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, nil, plumbing.ZeroHash, errors.Join(err, s.close())
	}
	return s, p, sum, nil
}

func unpackPack(ctx context.Context, req *workRequest, pack io.Reader, report func(Progress)) (_ *workResult, err error) {
	var kept *os.File
	if req.Keep {
		if kept, err = os.OpenFile(filepath.Join(req.Dir, "pack"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o444); err != nil {
			return nil, fmt.Errorf("keep pack: %w", err)
		}
		defer func() { _ = kept.Close() }()
		pack = io.TeeReader(pack, kept)
	}
	s, p, sum, err := req.load(ctx, pack, report)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	want := plumbing.NewHash(req.Want)
	if _, ok := s.index[want]; !ok {
		return nil, &missingCommitError{req.Want}
	}
	res, err := req.extract(ctx, s, want, false, report)
	if err != nil || !req.Keep {
		return res, err
	}
	res.Pack = sum.String()
	idx, err := os.OpenFile(filepath.Join(req.Dir, "idx"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o444)
	if err != nil {
		return nil, fmt.Errorf("keep index: %w", err)
	}
	if err := p.writeIndex(idx, sum); err != nil {
		return nil, errors.Join(fmt.Errorf("write index: %w", err), idx.Close())
	}
	return res, errors.Join(idx.Close(), kept.Close())
}

// extract writes the tree of a commit.
func (r *workRequest) extract(ctx context.Context, objs objects, want plumbing.Hash, verify bool, report func(Progress)) (*workResult, error) {
	commit, err := findCommit(objs, want)
	if err != nil {
		return nil, err
	}
	var root *os.Root
	if !r.Keep {
		if root, err = os.OpenRoot(filepath.Join(r.Dir, "tree")); err != nil {
			return nil, fmt.Errorf("open tree: %w", err)
		}
		defer func() { _ = root.Close() }()
	}
	report(Progress{Phase: "write"})
	t := &treeWriter{objs: objs, limits: r.Limits, prefix: r.Prefix, verify: verify}
	t.onFile = func(n int) {
		if n%256 == 0 {
			report(Progress{Files: n})
		}
	}
	tree, err := t.write(ctx, root, commit.TreeHash)
	if err != nil {
		return nil, err
	}
	report(Progress{Files: len(tree.Files)})
	return &workResult{Commit: commit.Hash.String(), Date: commit.Committer.When.UTC(), Tree: *tree}, nil
}

func findInPack(ctx context.Context, req *workRequest, pack io.Reader, report func(Progress)) (_ *workResult, err error) {
	s, _, _, err := req.load(ctx, pack, report)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	res := &workResult{}
	for h, e := range s.index {
		if id := h.String(); e.typ == plumbing.CommitObject && strings.HasPrefix(id, req.Want) {
			res.Matches = append(res.Matches, id)
		}
	}
	sort.Strings(res.Matches)
	if len(res.Matches) > maxNamesInError {
		res.Matches = res.Matches[:maxNamesInError]
	}
	return res, nil
}

// ChildMain is the whole of the child process that [Config.Child] starts: it
// reads a request and a pack from stdin, confines itself, works, and writes
// messages to stdout. It returns the exit status: 0 when the outcome, good or
// bad, was reported. A program calls it from a hidden subcommand, before it
// does anything else.
func ChildMain(ctx context.Context, stdin io.Reader, stdout io.Writer) int {
	in := bufio.NewReaderSize(stdin, 256<<10)
	line, err := in.ReadBytes('\n')
	var req workRequest
	if err == nil {
		err = json.Unmarshal(line, &req)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	enc := json.NewEncoder(stdout)
	report := func(p Progress) {
		if err := enc.Encode(message{Progress: &p}); err != nil {
			cancel(fmt.Errorf("parent is gone: %w", err))
		}
	}
	var res *workResult
	if err == nil {
		err = confine(&req)
	}
	if err == nil {
		res, err = perform(ctx, &req, in, report)
	}
	if err != nil {
		err = enc.Encode(message{Error: toWire(err)})
	} else {
		err = enc.Encode(message{Result: res})
	}
	if err != nil {
		return 1
	}
	return 0
}
