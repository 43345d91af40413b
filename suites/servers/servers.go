// Package servers says what suites need of the servers they measure: to start
// the one of an arm, to know what it is, and to start it anew between
// repetitions. Servers of our own are started by runner/server; what is served
// elsewhere is [Foreign] and is never restarted.
package servers

import (
	"context"
	"fmt"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/suites/endpoint"
)

// Starter starts the server of an arm.
type Starter interface {
	// Start returns when the server answers. The error is the context's, or one
	// with a UserError that names the fix when the server cannot be had: it ended
	// while it loaded, it never became healthy, no GPU is free.
	Start(ctx context.Context, arm spec.Arm) (Server, error)
}

// Server is the server of an arm. Its methods are not called concurrently, except
// Endpoint, Identity and Facts.
type Server interface {
	// Endpoint is the base URL, ending in /v1. It may change with a restart.
	Endpoint() string
	// Identity is what the server says of itself, and what its log, its process
	// and its GPUs say beyond that. The error says that it could not be seen.
	Identity(ctx context.Context) (endpoint.Identity, error)
	// Facts are what the log of the present process told while it started; the
	// zero value for a server of somebody else's.
	Facts() Facts
	// Restart ends the process and starts another with the same command on the
	// same GPUs. The error of a [Foreign] server is a [*NotOursError].
	Restart(ctx context.Context) error
	// Stop ends the process and all that it started, and returns when nothing is
	// left. A second call does nothing.
	Stop(ctx context.Context) error
}

// Facts are what an engine's log says of how it serves. What it does not say is
// zero.
type Facts struct {
	Engine  string `json:"engine,omitempty"` // vllm, sglang, …
	Version string `json:"version,omitempty"`

	Attention string   `json:"attention_backend,omitempty"` // FLASH_ATTN, FLASHINFER, fa3, …
	Quant     string   `json:"quantization,omitempty"`      // modelopt_fp4, fp8, compressed-tensors, …
	Kernels   []string `json:"kernels,omitempty"`           // of quantised linear layers and experts, in the order in which the log names them
	KVDtype   string   `json:"kv_dtype,omitempty"`

	KVTokens       int64   `json:"kv_tokens,omitempty"` // that the cache holds
	KVBlocks       int64   `json:"kv_blocks,omitempty"`
	KVBytes        int64   `json:"kv_bytes,omitempty"`        // per GPU
	MaxConcurrency float64 `json:"max_concurrency,omitempty"` // sequences of the full length that the cache holds at once
	WeightBytes    int64   `json:"weight_bytes,omitempty"`    // per GPU
	MaxModelLen    int     `json:"max_model_len,omitempty"`

	LoadS    float64 `json:"load_s,omitempty"`    // reading the weights
	CompileS float64 `json:"compile_s,omitempty"` // torch.compile
	GraphS   float64 `json:"graph_s,omitempty"`   // capturing CUDA graphs
	ReadyS   float64 `json:"ready_s,omitempty"`   // from the start of the process to the first healthy answer, by our clock

	Warnings []string `json:"warnings,omitempty"` // lines on which a comparison may hang, such as a slower kernel
	Log      string   `json:"log,omitempty"`      // the file that holds it all
}

// Kernel is the kernels as the identity of a server has them.
func (f Facts) Kernel() string {
	s := ""
	for _, k := range f.Kernels {
		if s != "" {
			s += "+"
		}
		s += k
	}
	return s
}

// Describe adds to a row of the servers table what a log says of starting.
func (f Facts) Describe(row *schema.ServerRow) {
	for _, t := range []struct {
		to *schema.Opt[float64]
		s  float64
	}{{&row.LoadS, f.LoadS}, {&row.CompileS, f.CompileS}, {&row.CaptureS, f.GraphS}, {&row.ReadyS, f.ReadyS}} {
		if t.s > 0 {
			*t.to = schema.Some(t.s)
		}
	}
}

// Foreign is a server that somebody else started.
type Foreign struct {
	Arm    string // for messages
	Client *endpoint.Client
}

// Endpoint implements [Server].
func (f Foreign) Endpoint() string { return f.Client.URL() }

// Identity implements [Server].
func (f Foreign) Identity(ctx context.Context) (endpoint.Identity, error) {
	return f.Client.Identity(ctx)
}

// Facts implements [Server].
func (f Foreign) Facts() Facts { return Facts{} }

// Restart implements [Server] and refuses.
func (f Foreign) Restart(context.Context) error {
	return &NotOursError{Arm: f.Arm, URL: f.Client.URL()}
}

// Stop implements [Server]; the server goes on.
func (f Foreign) Stop(context.Context) error { f.Client.Close(); return nil }

// EndedError says that a server of ours ended while it was needed.
type EndedError struct{ Err error }

func (e *EndedError) Error() string { return e.Err.Error() }

// Unwrap returns what its log tells of the reason.
func (e *EndedError) Unwrap() error { return e.Err }

// NotOursError refuses to restart a server that somebody else started.
type NotOursError struct{ Arm, URL string }

func (e *NotOursError) Error() string {
	return fmt.Sprintf("the server of arm %s at %s was not started by this program, so it is not restarted; a claim that rests on restarts is refused", e.Arm, e.URL)
}

// UserError returns the fix.
func (e *NotOursError) UserError() string {
	return fmt.Sprintf("leave out --endpoint %s=… and let it be started: --server %s=vllm, or a command with {port} and {model}", e.Arm, e.Arm)
}

// Ours reports whether a server can be restarted.
func Ours(s Server) bool {
	switch s.(type) {
	case Foreign, *Foreign:
		return false
	}
	return true
}

// Instance is one process of an arm's server, for results: what it was, from when
// to when.
type Instance struct {
	Arm      string            `json:"arm"`
	N        int               `json:"n"` // of the arm, from 0
	Endpoint string            `json:"endpoint"`
	Began    time.Time         `json:"began"`
	Ended    time.Time         `json:"ended,omitzero"`
	Identity endpoint.Identity `json:"identity"`
	Facts    Facts             `json:"facts,omitzero"`
}
