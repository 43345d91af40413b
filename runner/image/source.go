package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/image/layer"
)

// SourceRequest names a checkout.
type SourceRequest struct {
	Dir    string    // the checkout, only read
	Commit string    // its commit or tree, 40 hex digits: the key of the layer; empty makes the layer anew
	Time   time.Time // of the commit; every file gets it
}

// Image is an environment with a checkout.
type Image struct {
	Environment *Environment
	Image       v1.Image
	Digest      v1.Hash // of the manifest
	Source      layer.Descriptor
}

// WithSource appends the checkout to an environment. It needs no daemon and no
// network, and nothing is read when the commit's layer was made before.
func (b *Builder) WithSource(ctx context.Context, env *Environment, req SourceRequest) (*Image, error) {
	if env.Failure != nil {
		return nil, fmt.Errorf("append source: the environment could not be made: %s", env.Failure)
	}
	l, err := b.sourceLayer(ctx, req)
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(env.Image, matching(env.Image, l))
	if err != nil {
		return nil, fmt.Errorf("append source: %w", err)
	}
	d, err := img.Digest()
	if err != nil {
		return nil, fmt.Errorf("append source: %w", err)
	}
	return &Image{Environment: env, Image: img, Digest: d, Source: l.Descriptor()}, nil
}

func (b *Builder) sourceLayer(ctx context.Context, req SourceRequest) (*layer.Layer, error) {
	key := ""
	if req.Commit != "" {
		key = refKey(fmt.Sprint(req.Commit, req.Time.Unix(), SourcePath))
		rec, err := b.readRecord(kindSource, key)
		if err != nil {
			return nil, err
		}
		if rec != nil && len(rec.Layers) == 1 {
			if l, err := b.blobs.Open(rec.Layers[0]); err == nil {
				b.touch(rec)
				return l, nil
			}
		}
	}
	l, err := b.blobs.Write(ctx, req.Dir, layer.Options{At: SourcePath, Time: req.Time, Skip: func(rel string, _ fs.DirEntry) bool { return rel == ".git" }})
	if err != nil {
		return nil, err
	}
	if key == "" {
		return l, nil
	}
	return l, b.writeRecord(&record{Kind: kindSource, Key: key, Layers: []layer.Descriptor{l.Descriptor()}, Created: b.cfg.Now()})
}

// Layout writes an image as an OCI image layout to a folder that does not
// exist, or is empty.
func (b *Builder) Layout(img v1.Image, dir string) error {
	list, err := os.ReadDir(dir)
	if err == nil && len(list) > 0 {
		return &UserError{dir + " is not empty", "name a folder that does not exist"}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write image layout: %w", err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write image layout: %w", err)
	}
	if err := path.AppendImage(img); err != nil {
		return fmt.Errorf("write image layout: %w", err)
	}
	return nil
}

// Push uploads an image to the repository and returns its name by digest.
func (b *Builder) Push(ctx context.Context, img *Image) (string, error) {
	if b.cfg.Repository == "" {
		return "", &UserError{"no repository is configured to push to", "set `registry` (REPROMILL_REGISTRY) to HOST/REPOSITORY"}
	}
	b.cfg.Progress(Event{"push", b.cfg.Repository})
	pin, err := b.cfg.Registry.Push(ctx, b.cfg.Repository+":run-"+img.Digest.Hex[:32], img.Image)
	if err != nil {
		return "", err
	}
	return pin.Name(), nil
}

func envTag(repository, key string) string { return repository + ":env-" + key }

// publish puts an environment where other machines find it by its key.
func (b *Builder) publish(ctx context.Context, env *Environment) error {
	if b.cfg.Repository == "" {
		return nil
	}
	b.cfg.Progress(Event{"push", envTag(b.cfg.Repository, env.Key)})
	_, err := b.cfg.Registry.Push(ctx, envTag(b.cfg.Repository, env.Key), env.Image)
	return err
}

// fromRepository finds an environment by its tag, nil when there is none.
func (b *Builder) fromRepository(ctx context.Context, key string) (*Environment, error) {
	ref := envTag(b.cfg.Repository, key)
	if _, ok, err := b.cfg.Registry.Digest(ctx, ref); err != nil || !ok {
		return nil, err
	}
	pin, err := b.cfg.Registry.Resolve(ctx, ref)
	if err != nil {
		return nil, err
	}
	img, err := b.cfg.Registry.Image(ctx, pin.Name())
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ref, err)
	}
	rec, err := readLabel(cfg.Config.Labels[LabelEnvironment])
	if err != nil || cfg.Config.Labels[LabelKey] != key {
		return nil, nil // a tag that somebody else made
	}
	rec.Kind, rec.Key, rec.Base, rec.Layers, rec.Overlay, rec.Log, rec.Created = kindEnvironment, key, pin.Name(), nil, "", "", b.cfg.Now()
	if err := b.keep(img, rec); err != nil {
		return nil, err
	}
	if err := b.writeRecord(rec); err != nil {
		return nil, err
	}
	if img, err = b.open(rec); err != nil {
		return nil, err
	}
	return rec.environment(img), nil
}

// labelled is what an image says of itself.
type labelled struct {
	Python     string           `json:"python"`
	System     []string         `json:"system,omitempty"`
	Lock       []byte           `json:"lock"` // gzip, since it is mostly hashes
	Deviations []spec.Deviation `json:"deviations,omitempty"`
}

// maxLabel bounds what is read from a label.
const maxLabel = 16 << 20

func (r *record) label() (string, error) {
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf)
	_, err := io.WriteString(zw, r.Lock)
	if err = errors.Join(err, zw.Close()); err != nil {
		return "", fmt.Errorf("write label: %w", err)
	}
	body, err := json.Marshal(labelled{r.Python, r.System, buf.Bytes(), r.Deviations})
	if err != nil {
		return "", fmt.Errorf("write label: %w", err)
	}
	return base64.StdEncoding.EncodeToString(body), nil
}

func readLabel(s string) (*record, error) {
	body, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("read label: %w", err)
	}
	var l labelled
	if err := json.Unmarshal(body, &l); err != nil {
		return nil, fmt.Errorf("read label: %w", err)
	}
	zr, err := gzip.NewReader(bytes.NewReader(l.Lock))
	if err != nil {
		return nil, fmt.Errorf("read label: %w", err)
	}
	lock, err := io.ReadAll(io.LimitReader(zr, maxLabel))
	if err != nil {
		return nil, fmt.Errorf("read label: %w", err)
	}
	return &record{Python: l.Python, System: l.System, Lock: string(lock), Deviations: l.Deviations}, nil
}

// copyFile copies one file for the build's user.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644|info.Mode().Perm()&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil && os.Geteuid() == 0 {
		err = out.Chown(nobody, nobody)
	}
	return errors.Join(err, out.Close())
}
