package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/content"
	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/server"
	"github.com/repromill/repromill/suites/accuracy"
)

// maxEmbedded is up to how many parameters a model is served by the embedded
// engine without being asked to: beyond it an answer takes too long on a CPU.
const maxEmbedded = 1.2e9

// located is what a driver has found out of a model in a folder.
type located struct {
	small *bool   // whether the embedded engine is for it
	wrong *string // what stands against it, "" if nothing does
}

func (d *drive) located(dir string) *located {
	if d.models == nil {
		d.models = map[string]*located{}
	}
	if d.models[dir] == nil {
		d.models[dir] = &located{}
	}
	return d.models[dir]
}

// embedded adds how the arms are served of which nobody says it: a small model in
// a folder, on a machine without GPUs, by the engine that comes with this program.
func (d *drive) embedded(s accuracy.Serving) accuracy.Serving {
	if d.cfg.GPUs > 0 || d.plan == nil {
		return s
	}
	own := map[string]string{}
	for _, x := range d.wanted() {
		for _, a := range x.Arms {
			if !strings.HasPrefix(a.Model, "/") || s.URL(a) != "" || s.How(a) != "" {
				continue
			}
			m := d.located(a.Model)
			if m.small == nil {
				small := embeddable(a.Model)
				m.small = &small
			}
			if *m.small {
				own[a.Name] = server.Own
			}
		}
	}
	s.Servers = merged(s.Servers, own)
	return s
}

// embeddable reports whether the embedded engine computes the model in a folder,
// and is for one of its size.
func embeddable(dir string) bool {
	ctx, src := context.Background(), model.Folder(dir) // two small files
	config, err := decoder.ReadSmall(ctx, src, "config.json", model.MaxConfig)
	if err != nil {
		return false
	}
	quant, err := decoder.ReadSmall(ctx, src, "hf_quant_config.json", model.MaxConfig)
	if err != nil {
		return false
	}
	m, err := model.Parse(model.Input{ID: dir, Config: config, HFQuant: quant})
	if err != nil {
		return false
	}
	_, err = decoder.ParseConfig(m, config, nil)
	return err == nil && m.Params.Total <= maxEmbedded
}

// replaced says which model of a suite that this program serves from a folder is
// another one than the plan was made with, "" if none is. A folder is read once by
// each driver.
func (d *drive) replaced(ctx context.Context, s spec.Suite) (why string, err error) {
	at := d.serving()
	for _, a := range s.Arms {
		if !strings.HasPrefix(a.Model, "/") || a.Revision == "" || at.How(a) == "" || d.req.Answers != nil {
			continue
		}
		m := d.located(a.Model)
		if m.wrong == nil {
			why, err := d.read(ctx, s, a)
			if err != nil {
				return "", err
			}
			m.wrong = &why
		}
		if *m.wrong != "" {
			return *m.wrong, nil
		}
	}
	return "", nil
}

// read compares what the folder of an arm holds with what the plan says.
func (d *drive) read(ctx context.Context, s spec.Suite, a spec.Arm) (why string, err error) {
	last := d.cfg.Now()
	var told error
	sum, _, err := content.Checkpoint(ctx, a.Model, content.Config{Progress: func(_, bytes int64) {
		if now := d.cfg.Now(); now.Sub(last) >= progressEvery && told == nil {
			last = now
			told = d.cfg.Store.Append(ctx, d.run.ID, event(StageSuite(s.ID), Progress, map[string]any{"done": bytes, "unit": "B", "message": "reading " + a.Model}))
		}
	}})
	var user *content.Error
	switch {
	case errors.As(err, &user):
		return fmt.Sprintf("the model of arm %s cannot be read: %v", a.Name, err), nil
	case err != nil || told != nil:
		return "", errors.Join(err, told)
	case sum.SHA256 != a.Revision:
		return fmt.Sprintf("%s has changed since the plan was made with it as arm %s: its SHA-256 is %.12s, not %.12s; put back what was there, or plan again", a.Model, a.Name, sum.SHA256, a.Revision), nil
	}
	return "", nil
}
