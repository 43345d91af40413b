package bundle

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
)

// Bundle is one that is open for reading. Nothing of it is trusted but what its
// manifest's hashes hold together; who wrote the manifest is not known.
type Bundle struct {
	Manifest Manifest
	// Digest is the SHA-256 of bundle.json, by which two people can tell that they
	// have the same bundle.
	Digest string

	file    *os.File
	members map[string]*zip.File
}

const (
	fixOther = "ask for the file again, or make it with `repromill bundle RUN`"
	// maxDirectory bounds what is read of an archive's list of members.
	maxDirectory = 8 << 20
)

// Open opens the bundle in a file and checks everything but the content of its
// members, which is checked as they are read.
func Open(name string) (*Bundle, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, userErrorf("give a file written by `repromill bundle`", "cannot read the bundle: %v", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = userErrorf("give a file written by `repromill bundle`", "%s is no file", name)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b, err := Read(f, info.Size())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	b.file = f
	return b, nil
}

// Close closes the file that Open opened.
func (b *Bundle) Close() error {
	if b.file == nil {
		return nil
	}
	return b.file.Close()
}

// bounded stops a reader of an archive's list of members that does not end.
type bounded struct {
	r    io.ReaderAt
	left int64
	off  bool
}

var errDirectory = errors.New("its list of members is longer than that of any bundle")

func (b *bounded) ReadAt(p []byte, at int64) (int, error) {
	if !b.off {
		if b.left -= int64(len(p)); b.left < 0 {
			return 0, errDirectory
		}
	}
	return b.r.ReadAt(p, at)
}

// Read is Open on what r holds.
func Read(r io.ReaderAt, size int64) (*Bundle, error) {
	src := &bounded{r: r, left: maxDirectory}
	z, err := zip.NewReader(src, size)
	if err != nil {
		if errors.Is(err, errDirectory) {
			return nil, userErrorf(fixOther, "this is no bundle: %v", err)
		}
		return nil, userErrorf(fixOther, "this is no bundle, or its end is missing: %v", err)
	}
	src.off = true
	b := &Bundle{members: make(map[string]*zip.File, len(z.File))}
	if len(z.File) > maxParts+1 {
		return nil, userErrorf(fixOther, "this is no bundle: it has %d members", len(z.File))
	}
	for _, f := range z.File {
		switch {
		case checkPath(f.Name) != nil:
			return nil, userErrorf("do not unpack it either; "+fixOther, "this is no bundle: it has a member %.80q", f.Name)
		case b.members[f.Name] != nil:
			return nil, userErrorf(fixOther, "this is no bundle: it has the member %q twice", f.Name)
		case !f.Mode().IsRegular() || f.Flags&1 != 0 || f.Method != zip.Store && f.Method != zip.Deflate:
			return nil, userErrorf(fixOther, "this is no bundle: its member %q is a link, a device or encrypted", f.Name)
		}
		b.members[f.Name] = f
	}
	return b, b.manifest()
}

func (b *Bundle) manifest() error {
	f := b.members[ManifestName]
	if f == nil {
		return userErrorf(fixOther, "this is no bundle: it has no %s", ManifestName)
	}
	doc, err := inflate(f, maxManifest)
	if err != nil {
		return damaged(ManifestName, err)
	}
	sum := sha256.Sum256(doc)
	b.Digest = hex.EncodeToString(sum[:])
	var head struct {
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(doc, &head); err != nil {
		return userErrorf(fixOther, "this is no bundle: %s cannot be read: %v", ManifestName, err)
	}
	if head.Schema != SchemaV1 {
		if strings.HasPrefix(head.Schema, "repromill.bundle/") {
			return userErrorf("read it with the version of repromill that wrote it, or a newer one", "the bundle is of the kind %.40q, and this program reads %s", head.Schema, SchemaV1)
		}
		return userErrorf(fixOther, "this is no bundle: %s has the schema %.40q", ManifestName, head.Schema)
	}
	if err := json.Unmarshal(doc, &b.Manifest); err != nil {
		return userErrorf(fixOther, "this is no bundle: %s cannot be read: %v", ManifestName, err)
	}
	if err := b.Manifest.check(); err != nil {
		return userErrorf(fixOther, "this is no bundle: %v", err)
	}
	if len(b.members) != len(b.Manifest.Parts)+1 {
		return userErrorf(fixOther, "the bundle was changed: it has %d members, and its manifest lists %d", len(b.members)-1, len(b.Manifest.Parts))
	}
	for _, p := range b.Manifest.Parts {
		f := b.members[p.Path]
		if f == nil {
			return userErrorf(fixOther, "the bundle was changed: its member %q is missing", p.Path)
		}
		if f.UncompressedSize64 != uint64(p.Bytes) {
			return userErrorf(fixOther, "the bundle was changed: its member %q has %d bytes, and its manifest states %d", p.Path, f.UncompressedSize64, p.Bytes)
		}
	}
	return nil
}

func damaged(path string, err error) error {
	return userErrorf(fixOther, "the bundle is damaged or was changed: %s: %v", path, err)
}

// inflate reads a member, and never more than the bound whatever it says of itself.
func inflate(f *zip.File, bound int64) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, bound+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if int64(len(b)) > bound {
		return nil, fmt.Errorf("it unpacks to more than %d bytes", bound)
	}
	return b, nil
}

// checked passes on what a member holds, and ends with an error instead of EOF
// where that is not what the manifest states.
type checked struct {
	r    io.ReadCloser
	part Part
	sum  hash.Hash
	n    int64
}

func (c *checked) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.sum.Write(p[:n])
	switch {
	case c.n > c.part.Bytes:
		return 0, damaged(c.part.Path, fmt.Errorf("it has more than the %d bytes that the manifest states", c.part.Bytes))
	case errors.Is(err, io.EOF):
		if c.n != c.part.Bytes || hex.EncodeToString(c.sum.Sum(nil)) != c.part.SHA256 {
			return n, damaged(c.part.Path, errors.New("its content is not the one that the manifest states"))
		}
	case err != nil:
		return n, damaged(c.part.Path, err)
	}
	return n, err
}

func (c *checked) Close() error { return c.r.Close() }

// Reader reads a member; its last Read tells whether the content was the one that
// the manifest states.
func (b *Bundle) Reader(path string) (io.ReadCloser, error) {
	p := b.Manifest.Part(path)
	if p == nil {
		return nil, userErrorf("`repromill bundle verify FILE` lists the members", "the bundle has no %s", path)
	}
	r, err := b.members[path].Open()
	if err != nil {
		return nil, damaged(path, err)
	}
	return &checked{r: r, part: *p, sum: sha256.New()}, nil
}

// Document returns a member that is no Parquet.
func (b *Bundle) Document(path string) ([]byte, error) {
	if isRows(path) {
		return nil, fmt.Errorf("read %s: rows are read with Reader", path)
	}
	r, err := b.Reader(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(r); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (b *Bundle) decode(path string, v any) error {
	doc, err := b.Document(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(doc, v); err != nil {
		return damaged(path, err)
	}
	return nil
}

// Plan returns the plan of the bundle, which is valid and has the hash that it
// and the manifest state.
func (b *Bundle) Plan() (*spec.Plan, error) {
	part := b.Manifest.Part(planName)
	if part == nil {
		return nil, userErrorf("only runs of a plan are repeated", "the bundle holds no plan")
	}
	doc, err := b.Document(planName)
	if err != nil {
		return nil, err
	}
	p, err := spec.Decode(bytes.NewReader(doc))
	if err != nil {
		return nil, damaged(planName, err)
	}
	if h := p.ComputeHash(); h != p.Hash || h != b.Manifest.PlanHash {
		if part.Redacted > 0 {
			return nil, userErrorf("take plan.json out of the bundle, put back what reads [redacted], and use `repromill run -f plan.json`", "secrets were taken out of the bundle's plan, which is not the one that was run any more")
		}
		return nil, damaged(planName, errors.New("its hash is not the one that it states"))
	}
	return p, nil
}

// Outcome returns what the run gave.
func (b *Bundle) Outcome() (runner.Outcome, error) {
	var out runner.Outcome
	return out, b.decode(outcomeName, &out)
}

// Request returns how the run was asked for; nil where the bundle does not say.
// It comes from a stranger: whoever repeats the run must not take from it what
// names this machine's files, starts programs or switches isolation off.
func (b *Bundle) Request() (*runner.Request, error) {
	if b.Manifest.Part(requestName) == nil {
		return nil, nil
	}
	req := &runner.Request{}
	return req, b.decode(requestName, req)
}

// Verify reads every member and compares it with the manifest.
func (b *Bundle) Verify(ctx context.Context) error {
	for _, p := range b.Manifest.Parts {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := b.Reader(p.Path)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return errors.Join(err, r.Close())
		}
		if err := r.Close(); err != nil {
			return damaged(p.Path, err)
		}
	}
	return nil
}
