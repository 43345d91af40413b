package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner/image/layer"
)

// The kinds of record, each a folder of files by key.
const (
	kindEnvironment = "environments"
	kindSystem      = "system"  // a base with packages of the operating system
	kindBase        = "bases"   // what a name resolved to
	kindSource      = "sources" // the layer of a checkout
)

// record is what is known of an image that was made or seen. Its manifest and
// configuration are blobs; layers that are no blobs come from Base.
type record struct {
	Kind     string             `json:"kind"`
	Key      string             `json:"key"`
	Manifest v1.Hash            `json:"manifest,omitzero"`
	Config   v1.Hash            `json:"config,omitzero"`
	Layers   []layer.Descriptor `json:"layers,omitempty"`
	Base     string             `json:"base,omitempty"`  // repository@digest that further layers come from
	Local    string             `json:"local,omitempty"` // id in the engine, for what no registry has
	Created  time.Time          `json:"created"`
	Used     time.Time          `json:"used"`

	Python     string           `json:"python,omitempty"`
	System     []string         `json:"system,omitempty"`
	Lock       string           `json:"lock,omitempty"`
	Deviations []spec.Deviation `json:"deviations,omitempty"`
	Log        string           `json:"log,omitempty"`
	Overlay    string           `json:"overlay,omitempty"`
}

func (r *record) environment(img v1.Image) *Environment {
	return &Environment{
		Key: r.Key, Digest: r.Manifest, Base: r.Base, Python: r.Python, System: r.System, Lock: r.Lock,
		Deviations: r.Deviations, Log: r.Log, Overlay: r.Overlay, Reused: true, Image: img,
	}
}

func (b *Builder) recordPath(kind, key string) string {
	return filepath.Join(b.cfg.Dir, kind, key+".json")
}

// readRecord returns nil without an error when there is no such record, or one
// that cannot be read: then it is made again.
func (b *Builder) readRecord(kind, key string) (*record, error) {
	body, err := os.ReadFile(b.recordPath(kind, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read image record: %w", err)
	}
	var r record
	if json.Unmarshal(body, &r) != nil || r.Key != key || r.Kind != kind {
		return nil, nil
	}
	return &r, nil
}

func (b *Builder) writeRecord(r *record) error {
	body, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("write image record: %w", err)
	}
	err = atomicfile.Write(b.recordPath(r.Kind, r.Key), body, atomicfile.Options{Hook: b.cfg.Hook, Point: "image:record"})
	if err != nil && !atomicfile.IsVisible(err) {
		return fmt.Errorf("write image record: %w", err)
	}
	return nil
}

// touch notes that an image was used, for [Builder.Prune]. That the note is
// lost only makes the image look older.
func (b *Builder) touch(r *record) {
	now := b.cfg.Now()
	_ = os.Chtimes(b.recordPath(r.Kind, r.Key), now, now)
}

// lock keeps other processes from making the same image.
func (b *Builder) lock(ctx context.Context, key string) (unlock func(), err error) {
	l := flock.New(filepath.Join(b.cfg.Dir, "work", key+".lock"))
	if _, err := l.TryLockContext(ctx, 100*time.Millisecond); err != nil {
		return nil, fmt.Errorf("lock image: %w", err)
	}
	return func() { _ = l.Unlock() }, nil
}

// blob writes bytes under their digest.
func (b *Builder) blob(body []byte) (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(body))
	if err != nil {
		return v1.Hash{}, fmt.Errorf("keep blob: %w", err)
	}
	if err := atomicfile.MkdirAll(filepath.Dir(b.blobs.Path(h)), 0o755); err != nil {
		return v1.Hash{}, fmt.Errorf("keep blob: %w", err)
	}
	err = atomicfile.Write(b.blobs.Path(h), body, atomicfile.Options{Hook: b.cfg.Hook, Point: "image:blob"})
	if err != nil && !atomicfile.IsVisible(err) {
		return v1.Hash{}, fmt.Errorf("keep blob: %w", err)
	}
	return h, nil
}

// keep stores the manifest and the configuration of an image and fills them
// into the record.
func (b *Builder) keep(img v1.Image, r *record) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return fmt.Errorf("keep image: %w", err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return fmt.Errorf("keep image: %w", err)
	}
	if r.Manifest, err = b.blob(manifest); err != nil {
		return err
	}
	r.Config, err = b.blob(config)
	return err
}

// open returns the image of a record. Its layers are read when they are asked
// for, so that this costs two small files.
func (b *Builder) open(r *record) (v1.Image, error) {
	s := &stored{b: b, r: r}
	var err error
	if s.manifest, err = os.ReadFile(b.blobs.Path(r.Manifest)); err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	if s.config, err = os.ReadFile(b.blobs.Path(r.Config)); err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	var m v1.Manifest
	if err := json.Unmarshal(s.manifest, &m); err != nil {
		return nil, fmt.Errorf("open image: %w", err)
	}
	s.media = m.MediaType
	if s.media == "" {
		s.media = types.OCIManifestSchema1
	}
	for _, d := range r.Layers {
		if _, err := b.blobs.Open(d); err != nil {
			return nil, err
		}
	}
	return partial.CompressedToImage(s)
}

// stored is an image in the store.
type stored struct {
	b                *Builder
	r                *record
	manifest, config []byte
	media            types.MediaType
}

func (s *stored) RawManifest() ([]byte, error)        { return s.manifest, nil }
func (s *stored) RawConfigFile() ([]byte, error)      { return s.config, nil }
func (s *stored) MediaType() (types.MediaType, error) { return s.media, nil }
func (s *stored) descriptor(h v1.Hash) (v1.Descriptor, error) {
	var m v1.Manifest
	if err := json.Unmarshal(s.manifest, &m); err != nil {
		return v1.Descriptor{}, fmt.Errorf("read manifest: %w", err)
	}
	for _, d := range append(m.Layers, m.Config) {
		if d.Digest == h {
			return d, nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("the image has no layer %s", h)
}

// LayerByDigest finds a layer among the blobs, else in the base's repository.
func (s *stored) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	d, err := s.descriptor(h)
	if err != nil {
		return nil, err
	}
	for _, l := range s.r.Layers {
		if l.Digest == h {
			own, err := s.b.blobs.Open(l)
			if err != nil {
				return nil, err
			}
			return &typed{own, d.MediaType}, nil
		}
	}
	return &remoteLayer{s.b, s.r.Base, d}, nil
}

// typed is a layer under the media type that its manifest gives it.
type typed struct {
	*layer.Layer
	media types.MediaType
}

func (t *typed) MediaType() (types.MediaType, error) { return t.media, nil }

// remoteLayer is a layer of a base image, fetched when it is read.
type remoteLayer struct {
	b    *Builder
	base string
	d    v1.Descriptor
}

func (l *remoteLayer) Digest() (v1.Hash, error)            { return l.d.Digest, nil }
func (l *remoteLayer) Size() (int64, error)                { return l.d.Size, nil }
func (l *remoteLayer) MediaType() (types.MediaType, error) { return l.d.MediaType, nil }
func (l *remoteLayer) Compressed() (io.ReadCloser, error) {
	if l.base == "" {
		return nil, fmt.Errorf("layer %s is not in the store", l.d.Digest)
	}
	from, err := l.b.cfg.Registry.Layer(context.Background(), l.base, l.d.Digest)
	if err != nil {
		return nil, err
	}
	return from.Compressed()
}
