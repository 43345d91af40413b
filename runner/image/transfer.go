package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image/layer"
)

// importFromEngine reads an image out of the engine. Layers that stand on the
// image below are taken from there; the others become blobs and are listed in
// the record. below is nil for an image of its own.
func (b *Builder) importFromEngine(ctx context.Context, id string, below v1.Image, rec *record) (v1.Image, error) {
	rc, err := b.cfg.Engine.Save(ctx, id)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	tmp, err := os.CreateTemp(filepath.Join(b.cfg.Dir, "work"), "save-*.tar")
	if err != nil {
		return nil, fmt.Errorf("read image from the engine: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, rc)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return nil, fmt.Errorf("read image from the engine: %w", err)
	}
	saved, err := tarball.ImageFromPath(tmp.Name(), nil)
	if err != nil {
		return nil, fmt.Errorf("read image from the engine: %w", err)
	}
	layers, err := saved.Layers()
	if err != nil {
		return nil, fmt.Errorf("read image from the engine: %w", err)
	}
	img := v1.Image(empty.Image)
	skip := 0
	if below != nil {
		cfg, err := below.ConfigFile()
		if err != nil {
			return nil, fmt.Errorf("read base image: %w", err)
		}
		img, skip = below, len(cfg.RootFS.DiffIDs)
	}
	for _, l := range layers[min(skip, len(layers)):] {
		own, err := b.copyLayer(ctx, l)
		if err != nil {
			return nil, err
		}
		rec.Layers = append(rec.Layers, own.Descriptor())
		if img, err = mutate.AppendLayers(img, own); err != nil {
			return nil, fmt.Errorf("append layer: %w", err)
		}
	}
	cfg, err := saved.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read image from the engine: %w", err)
	}
	if img, err = withConfig(img, cfg, func(*v1.Config) {}); err != nil {
		return nil, err
	}
	if err := b.keep(img, rec); err != nil {
		return nil, err
	}
	return b.open(rec)
}

func (b *Builder) copyLayer(ctx context.Context, l v1.Layer) (*layer.Layer, error) {
	rc, err := l.Uncompressed()
	if err != nil {
		return nil, fmt.Errorf("read layer: %w", err)
	}
	defer rc.Close()
	return b.blobs.Copy(ctx, rc)
}

// withConfig gives an image the configuration of another, changed by edit. Its
// own layers stay, and its times are fixed, so that the same content has the
// same digest.
func withConfig(img v1.Image, from *v1.ConfigFile, edit func(*v1.Config)) (v1.Image, error) {
	own, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	cfg := own.DeepCopy()
	cfg.Architecture, cfg.OS, cfg.Variant = from.Architecture, from.OS, from.Variant
	cfg.Config = *from.Config.DeepCopy()
	cfg.Created = v1.Time{Time: layer.Epoch()}
	cfg.Author, cfg.Container = "", "" // they would differ by machine
	edit(&cfg.Config)
	out, err := mutate.ConfigFile(img, cfg)
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	return out, nil
}

// Load puts an image into the engine and returns a name to run it by. Layers
// that the engine has are not sent, where its store allows that.
func (b *Builder) Load(ctx context.Context, img v1.Image, tag string) (string, error) {
	if b.cfg.Engine == nil {
		return "", errNoEngine()
	}
	id, err := img.ConfigName()
	if err != nil {
		return "", fmt.Errorf("load image: %w", err)
	}
	if have, err := b.cfg.Engine.InspectImage(ctx, id.String()); err == nil {
		if tag != "" && b.cfg.Engine.Tag(ctx, have.ID, tag) == nil {
			return tag, nil
		}
		return have.ID, nil
	} else if !errors.Is(err, engine.ErrNotFound) {
		return "", err
	}
	b.cfg.Progress(Event{"load", "into the engine"})
	skip, err := b.common(ctx, img)
	if err != nil {
		return "", err
	}
	if skip > 0 {
		// An engine with another store than layers by chain refuses this.
		if name, err := b.send(ctx, img, tag, skip); err == nil {
			return name, nil
		} else if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
	return b.send(ctx, img, tag, 0)
}

// common is how many layers of an image, from the lowest, the engine has.
func (b *Builder) common(ctx context.Context, img v1.Image) (int, error) {
	cfg, err := img.ConfigFile()
	if err != nil {
		return 0, fmt.Errorf("load image: %w", err)
	}
	most := 0
	list, err := b.cfg.Engine.ListImages(ctx, nil)
	if err != nil {
		return 0, err
	}
	for _, m := range list {
		have, err := b.cfg.Engine.InspectImage(ctx, m.ID)
		if err != nil {
			continue // removed meanwhile
		}
		n := 0
		for n < len(have.Layers) && n < len(cfg.RootFS.DiffIDs) && have.Layers[n] == cfg.RootFS.DiffIDs[n].String() {
			n++
		}
		most = max(most, n)
	}
	return most, nil
}

// send writes an image in the form of `docker save`, without its first layers.
func (b *Builder) send(ctx context.Context, img v1.Image, tag string, skip int) (string, error) {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(writeSaved(pw, img, tag, skip)) }()
	names, err := b.cfg.Engine.Load(ctx, pr)
	pr.CloseWithError(errors.New("the engine stopped reading"))
	if err != nil {
		return "", err
	}
	return names[0], nil
}

func writeSaved(w io.Writer, img v1.Image, tag string, skip int) error {
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	id, err := img.ConfigName()
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: id.Hex + ".json", RepoTags: []string{}}
	if tag != "" {
		entry.RepoTags = []string{tag}
	}
	for _, l := range layers {
		d, err := l.Digest()
		if err != nil {
			return err
		}
		entry.Layers = append(entry.Layers, d.Hex+".tar.gz")
	}
	manifest, err := json.Marshal([]any{entry})
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	file := func(name string, size int64, r io.Reader) error {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size, Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
		_, err := io.Copy(tw, r)
		return err
	}
	if err := file("manifest.json", int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return err
	}
	if err := file(entry.Config, int64(len(config)), bytes.NewReader(config)); err != nil {
		return err
	}
	for i, l := range layers {
		if i < skip {
			continue
		}
		if err := saveLayer(l, entry.Layers[i], file); err != nil {
			return err
		}
	}
	return tw.Close()
}

func saveLayer(l v1.Layer, name string, file func(string, int64, io.Reader) error) error {
	size, err := l.Size()
	if err != nil {
		return err
	}
	rc, err := l.Compressed()
	if err != nil {
		return err
	}
	defer rc.Close()
	return file(name, size, rc)
}
