// Package layer turns folders into image layers: the same content gives the
// same bytes, on every machine and at any time.
//
// A layer is written once, in one pass, to a file named by its digest; memory
// does not grow with the folder. A layer with a file behind it can be pushed
// again after a dropped connection, and can be left out where the other side
// has it already, which a stream cannot.
package layer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"

	"github.com/repromill/repromill/results/atomicfile"
)

// Descriptor is what has to be kept of a layer to open it again.
type Descriptor struct {
	Digest v1.Hash `json:"digest"`  // of the compressed bytes
	DiffID v1.Hash `json:"diff_id"` // of the tar
	Size   int64   `json:"size"`    // compressed, in bytes
	Bytes  int64   `json:"bytes"`   // of all files, uncompressed
	Files  int     `json:"files"`
	Left   int     `json:"left_out,omitempty"` // pipes, sockets and devices, which no layer holds
}

// Store is a folder of blobs by digest, "blobs/sha256/HEX" below Dir as in an
// OCI image layout.
type Store struct {
	Dir  string
	Hook func(point string) // may be nil; "layer:blob-<step>:<before|after>"
}

// Path is where the blob of a digest lies, present or not.
func (s Store) Path(h v1.Hash) string {
	return filepath.Join(s.Dir, "blobs", h.Algorithm, h.Hex)
}

// Write makes a layer of a folder and keeps its bytes in the store. Nothing is
// visible there until the layer is complete and on disk.
func (s Store) Write(ctx context.Context, dir string, o Options) (*Layer, error) {
	l, err := s.write(func(w io.Writer) (Descriptor, error) { return writeTar(ctx, w, dir, o) })
	if err != nil {
		return nil, fmt.Errorf("write layer of %s: %w", dir, err)
	}
	return l, nil
}

// Copy keeps a layer that is a tar already, as it is.
func (s Store) Copy(ctx context.Context, tar io.Reader) (*Layer, error) {
	l, err := s.write(func(w io.Writer) (d Descriptor, err error) {
		d.Bytes, err = io.Copy(w, &watched{ctx, tar})
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("copy layer: %w", err)
	}
	return l, nil
}

// watched is a reader that ends with its context.
type watched struct {
	ctx context.Context
	r   io.Reader
}

func (w *watched) Read(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(p)
}

// write keeps what fill writes.
func (s Store) write(fill func(io.Writer) (Descriptor, error)) (*Layer, error) {
	blobs := filepath.Join(s.Dir, "blobs", "sha256")
	if err := atomicfile.MkdirAll(blobs, 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(blobs, ".layer-*.tmp")
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name()) // gone already once it has its name
	d, err := compress(tmp, fill)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return nil, err
	}
	err = atomicfile.Rename(tmp.Name(), s.Path(d.Digest), atomicfile.Options{Hook: s.Hook, Point: "layer:blob"})
	if err != nil && !atomicfile.IsVisible(err) {
		return nil, err
	}
	return &Layer{d: d, store: s}, nil
}

// Open returns a layer that was written before. The error is fs.ErrNotExist
// when its bytes are gone, or when the file has another size.
func (s Store) Open(d Descriptor) (*Layer, error) {
	info, err := os.Stat(s.Path(d.Digest))
	if err != nil {
		return nil, fmt.Errorf("open layer: %w", err)
	}
	if info.Size() != d.Size {
		return nil, fmt.Errorf("open layer %s: %d bytes instead of %d: %w", d.Digest, info.Size(), d.Size, fs.ErrNotExist)
	}
	return &Layer{d: d, store: s}, nil
}

// counter counts and hashes what passes.
type counter struct {
	w io.Writer
	h hash.Hash
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.h.Write(p[:n])
	c.n += int64(n)
	return n, err
}

func (c *counter) sum() v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(c.h.Sum(nil))}
}

// compress writes a gzipped tar. gzip and not zstd, because
// engines before Docker 23 cannot read zstd layers; the fastest level, because
// a local image is read once and a pushed one is bound by the network.
func compress(w io.Writer, fill func(io.Writer) (Descriptor, error)) (Descriptor, error) {
	out := &counter{w: w, h: sha256.New()}
	zw, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return Descriptor{}, err
	}
	in := &counter{w: zw, h: sha256.New()}
	d, err := fill(in)
	if err = errors.Join(err, zw.Close()); err != nil {
		return Descriptor{}, err
	}
	d.Digest, d.DiffID, d.Size = out.sum(), in.sum(), out.n
	return d, nil
}

// Layer is a layer whose bytes lie in a store; it implements v1.Layer.
type Layer struct {
	d     Descriptor
	store Store
}

var _ v1.Layer = (*Layer)(nil)

// Descriptor is what [Store.Open] needs to find the layer again.
func (l *Layer) Descriptor() Descriptor { return l.d }

// Digest is the hash of the compressed bytes.
func (l *Layer) Digest() (v1.Hash, error) { return l.d.Digest, nil }

// DiffID is the hash of the uncompressed tar.
func (l *Layer) DiffID() (v1.Hash, error) { return l.d.DiffID, nil }

// Size is the length of the compressed bytes.
func (l *Layer) Size() (int64, error) { return l.d.Size, nil }

// MediaType is Docker's, which every engine and registry takes.
func (l *Layer) MediaType() (types.MediaType, error) { return types.DockerLayer, nil }

// Compressed opens the bytes as they are stored.
func (l *Layer) Compressed() (io.ReadCloser, error) {
	f, err := os.Open(l.store.Path(l.d.Digest))
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	return f, nil
}

// Uncompressed opens the tar.
func (l *Layer) Uncompressed() (io.ReadCloser, error) {
	f, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	zr, err := gzip.NewReader(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read layer: %w", err), f.Close())
	}
	return &unzipped{zr, f}, nil
}

type unzipped struct {
	*gzip.Reader
	f io.Closer
}

func (u *unzipped) Close() error { return errors.Join(u.Reader.Close(), u.f.Close()) }
