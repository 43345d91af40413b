package spec

import (
	"strings"
	"time"
)

// Binding is what a person gave for something that planning could not know:
// data, a checkpoint, or the value of a placeholder.
//
// A command refers to a bound path by the word "{bind:NAME}", which the runner
// replaces by the place where the attempt sees it, so that the plan does not
// depend on where somebody keeps their data.
type Binding struct {
	Kind   string   `json:"kind"`             // data|checkpoint|set
	Name   string   `json:"name"`             // unique in the plan
	For    string   `json:"for,omitempty"`    // the placeholder, argument or asset it stands for
	Value  string   `json:"value,omitempty"`  // of set: the word itself
	Path   string   `json:"path,omitempty"`   // absolute, on the machine that runs it
	URL    string   `json:"url,omitempty"`    // of a checkpoint that is fetched
	SHA256 string   `json:"sha256,omitempty"` // of what Path holds, see package runner/content; of what URL gives, where it is known
	Files  int64    `json:"files,omitempty"`
	Bytes  int64    `json:"bytes,omitempty"`
	Place  string   `json:"place,omitempty"` // path below the checkout at which it is shown; empty when the command names it
	Runs   []string `json:"runs,omitempty"`  // ids of the runs that use it
}

// Token is the word that stands for a bound path in a command.
func (b *Binding) Token() string { return "{bind:" + b.Name + "}" }

// Shown is a command with what was bound in place of its tokens.
func (p *Plan) Shown(command string) string {
	for i := range p.Bindings {
		b := &p.Bindings[i]
		at := b.Path
		if at == "" {
			at = b.URL
		}
		command = strings.ReplaceAll(command, b.Token(), at)
	}
	return command
}

// Need is one thing that keeps a run from going by itself.
type Need struct {
	What   string `json:"what"`           // placeholder|file|checkpoint|dataset|setting|secret|entry|environment|result
	Name   string `json:"name"`           // of the placeholder, file, asset or variable
	Status string `json:"status"`         // the status that it gives the run
	Reason string `json:"reason"`         // the same words as in the run's reasons
	Flag   string `json:"flag,omitempty"` // the option of plan and run that supplies it, "--data imagenet=DIR"; empty when none can
}

// Preflight is what a look at one address found before anything was spent.
type Preflight struct {
	Name       string     `json:"name"` // of the asset
	URL        string     `json:"url,omitempty"`
	Runs       []string   `json:"runs,omitempty"` // that need it
	Status     string     `json:"status"`         // ok|gated|missing|unreachable|not_checked
	HTTPStatus int        `json:"http_status,omitempty"`
	Bytes      int64      `json:"bytes,omitempty"` // as the site states it
	Reason     string     `json:"reason,omitempty"`
	CheckedAt  *time.Time `json:"checked_at,omitempty"` // missing when nothing was asked
}

// Seeding says how the seeds of a run reach its code.
type Seeding struct {
	By       string     `json:"by"`             // flag|argument|none|exempt
	Name     string     `json:"name,omitempty"` // of the option, "--seed"; of the argument, "seed="
	Reason   string     `json:"reason,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
}
