package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/image/registry"
)

// base is the image that an environment is built on.
type base struct {
	ref   string // as configured or planned
	pin   string // repository@digest; empty for an image that only the engine has
	id    string // name in the engine, once it is there
	rec   *record
	image v1.Image
}

// digest identifies the content.
func (b *base) digest() string {
	if b.pin != "" {
		_, d, _ := strings.Cut(b.pin, "@")
		return d
	}
	return b.rec.Manifest.String()
}

// findBase returns the first base image of the list that exists. An image that
// no registry gives is taken from the engine, and one whose registry cannot be
// reached is the one it was when it was last seen.
func (b *Builder) findBase(ctx context.Context, req *EnvRequest, pythons []string) (*base, []spec.Deviation, error) {
	var first error
	for _, ref := range b.baseRefs(req, pythons) {
		found, devs, err := b.resolveBase(ctx, ref)
		if err == nil {
			return found, devs, nil
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = &UserError{"no base image is configured", "set images.bases to a list such as " + DefaultBases()[0]}
	}
	return nil, nil, fmt.Errorf("find base image: %w", first)
}

// baseRefs lists the candidates: the one asked for alone; else the plan's for
// the GPU, then the configured ones, each with every acceptable Python.
func (b *Builder) baseRefs(req *EnvRequest, pythons []string) (out []string) {
	if req.Base != "" {
		return []string{req.Base}
	}
	if req.SKU != "" {
		if ref := req.Environment.SKUs[req.SKU].BaseImage; ref != "" {
			out = append(out, ref)
		}
	}
	for _, p := range b.cfg.Bases {
		if !strings.Contains(p, "{python}") {
			out = append(out, p)
			continue
		}
		for _, v := range pythons {
			out = append(out, strings.ReplaceAll(p, "{python}", v))
		}
	}
	return out
}

func refKey(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return hex.EncodeToString(sum[:])
}

func (b *Builder) resolveBase(ctx context.Context, ref string) (*base, []spec.Deviation, error) {
	old, err := b.readRecord(kindBase, refKey(ref))
	if err != nil {
		return nil, nil, err
	}
	if old != nil && old.Base != "" && strings.Contains(ref, "@") {
		if img, err := b.open(old); err == nil {
			return &base{ref: ref, pin: old.Base, rec: old, image: img}, nil, nil
		}
	}
	pin, err := b.cfg.Registry.Resolve(ctx, ref)
	if err == nil {
		found, err := b.pinned(ctx, ref, pin, old)
		return found, nil, err
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	if local, lerr := b.engineBase(ctx, ref); local != nil || lerr != nil {
		return local, nil, lerr
	}
	var reg *registry.Error
	gone := errors.As(err, &reg) && strings.Contains(reg.Error(), "there is no such image")
	if old != nil && old.Base != "" && !gone {
		if img, oerr := b.open(old); oerr == nil {
			_, digest, _ := strings.Cut(old.Base, "@")
			return &base{ref: ref, pin: old.Base, rec: old, image: img}, []spec.Deviation{{
				What: "base image", Declared: ref, Used: digest, Reason: "its registry could not be asked; this is what it was on " + old.Created.UTC().Format("2006-01-02"),
			}}, nil
		}
	}
	return nil, nil, err
}

// pinned keeps what a name resolved to.
func (b *Builder) pinned(ctx context.Context, ref string, pin name.Digest, old *record) (*base, error) {
	if old != nil && old.Base == pin.Name() {
		if img, err := b.open(old); err == nil {
			return &base{ref: ref, pin: pin.Name(), rec: old, image: img}, nil
		}
	}
	img, err := b.cfg.Registry.Image(ctx, pin.Name())
	if err != nil {
		return nil, err
	}
	rec := &record{Kind: kindBase, Key: refKey(ref), Base: pin.Name(), Created: b.cfg.Now()}
	if err := b.keep(img, rec); err != nil {
		return nil, err
	}
	if err := b.writeRecord(rec); err != nil {
		return nil, err
	}
	if img, err = b.open(rec); err != nil {
		return nil, err
	}
	return &base{ref: ref, pin: pin.Name(), rec: rec, image: img}, nil
}

// engineBase takes an image that only the engine has into the store, nil when
// the engine does not have it either.
func (b *Builder) engineBase(ctx context.Context, ref string) (*base, error) {
	if b.cfg.Engine == nil {
		return nil, nil
	}
	info, err := b.cfg.Engine.InspectImage(ctx, ref)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	key := refKey("engine " + info.ID)
	if rec, err := b.readRecord(kindBase, key); err == nil && rec != nil {
		if img, err := b.open(rec); err == nil {
			return &base{ref: ref, id: info.ID, rec: rec, image: img}, nil
		}
	}
	b.cfg.Progress(Event{"base", "read " + ref + " from the engine"})
	rec := &record{Kind: kindBase, Key: key, Local: info.ID, Created: b.cfg.Now()}
	img, err := b.importFromEngine(ctx, info.ID, nil, rec)
	if err != nil {
		return nil, err
	}
	return &base{ref: ref, id: info.ID, rec: rec, image: img}, b.writeRecord(rec)
}

// inEngine makes sure that the engine has the base and returns its name there.
func (b *Builder) inEngine(ctx context.Context, bs *base) (string, error) {
	if bs.id != "" {
		return bs.id, nil
	}
	if _, err := b.cfg.Engine.InspectImage(ctx, bs.pin); err == nil {
		bs.id = bs.pin
		return bs.id, nil
	} else if !errors.Is(err, engine.ErrNotFound) {
		return "", err
	}
	b.cfg.Progress(Event{"base", "pull " + bs.pin})
	auth, err := dockerAuth(bs.pin)
	if err != nil {
		return "", err
	}
	err = b.cfg.Engine.Pull(ctx, bs.pin, auth, func(s string) { b.cfg.Progress(Event{"base", s}) })
	var reg *engine.RegistryError
	for try := 0; errors.As(err, &reg) && reg.Temporary() && try < 3 && ctx.Err() == nil; try++ {
		err = b.cfg.Engine.Pull(ctx, bs.pin, auth, nil) // what has arrived is kept
	}
	if err != nil {
		return "", err
	}
	bs.id = bs.pin
	return bs.id, nil
}

// dockerAuth is the login of the Docker configuration for a registry.
func dockerAuth(ref string) (engine.Auth, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return engine.Auth{}, fmt.Errorf("find login: %w", err)
	}
	a, err := authn.DefaultKeychain.Resolve(r.Context())
	if err != nil {
		return engine.Auth{}, fmt.Errorf("find login: %w", err)
	}
	c, err := a.Authorization()
	if err != nil {
		return engine.Auth{}, fmt.Errorf("find login: %w", err)
	}
	return engine.Auth{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}, nil
}
