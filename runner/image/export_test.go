package image

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/repromill/repromill/planner/spec"
)

// Key is the key that a request comes to.
func (b *Builder) Key(ctx context.Context, req EnvRequest) (string, error) {
	r, fail, err := b.recipe(ctx, req)
	if err != nil || fail != nil {
		return "", err
	}
	return r.key, nil
}

// Labelled gives an image the labels of a built environment.
func Labelled(img v1.Image, key, lock string, devs []spec.Deviation) (v1.Image, error) {
	label, err := (&record{Lock: lock, Deviations: devs}).label()
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	return withConfig(img, cfg, func(c *v1.Config) { c.Labels = map[string]string{LabelKey: key, LabelEnvironment: label} })
}
