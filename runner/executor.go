// Package runner is the life of a run: what its stages are, what state it is
// in, and how it is taken up again after any interruption.
//
// The package owns the vocabulary ([Event], [Attempt], [Status]) and the
// [Executor] interface; the executors themselves (local, docker, kueue) and
// the durable store live in packages below it.
package runner

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/repromill/repromill/planner/spec"
)

// Executor runs attempts somewhere. There is no blocking Run: after a crash
// the runner adopts what it had submitted. Every implementation passes the
// suite in runner/executortest.
type Executor interface {
	// Submit starts the attempt, or adopts it when one with the same Key was
	// already submitted. It is idempotent by Attempt.Key. The Handle is opaque
	// and stays valid in another process.
	Submit(ctx context.Context, a Attempt) (Handle, error)
	// Observe reports where the attempt stands. An error means that the
	// executor could not look; it never changes the run.
	Observe(ctx context.Context, h Handle) (Status, error)
	// Cancel stops the attempt and everything it started. Cancelling a
	// finished or cancelled attempt is not an error.
	Cancel(ctx context.Context, h Handle) error
}

// Logger is implemented by executors that can show an attempt's output.
type Logger interface {
	// Logs returns the combined output from the given byte on. It ends at the
	// present end of the output; call it again to follow.
	Logs(ctx context.Context, h Handle, fromByte int64) (io.ReadCloser, error)
}

// Handle names a submitted attempt to the executor that made it.
type Handle string

// AttemptKey identifies one try of one piece of work: "run_id/stage/arm/shard/n".
type AttemptKey struct {
	RunID string
	Stage string
	Arm   string // "-" where there are no arms
	Shard int
	N     int // 0 for the first try
}

func (k AttemptKey) String() string {
	arm := k.Arm
	if arm == "" {
		arm = "-"
	}
	return fmt.Sprintf("%s/%s/%s/%d/%d", k.RunID, k.Stage, arm, k.Shard, k.N)
}

// Hash is the first 16 hex digits of the key's SHA-256: short enough for a
// folder or object name, long enough never to collide in one store.
func (k AttemptKey) Hash() string {
	sum := sha256.Sum256([]byte(k.String()))
	return hex.EncodeToString(sum[:])[:16]
}

// Attempt is everything an executor needs to run one command.
type Attempt struct {
	Key AttemptKey

	// Argv is executed as it is, never through a shell.
	Argv []string
	// Dir is the absolute working directory; it lies in one of Writable.
	Dir string
	// Env is the whole environment of the command beyond what the executor
	// itself sets (PATH, HOME, TMPDIR, LANG). Nothing is inherited.
	Env map[string]string
	// Writable and ReadOnly are absolute paths the command may use.
	Writable []string
	ReadOnly []string
	// Inputs are those of ReadOnly that hold data or weights of the user's.
	Inputs []Input

	Network Network
	Limits  Limits
	GPUs    int
	// Expected is how many seconds the command takes by the plan's estimate, for
	// those who have to wait for it; nil is unknown.
	Expected *spec.Interval `json:",omitempty"`
	// SKU is the GPU model that the attempt is meant for, an id of
	// estimators/sku; empty is any. What ran on another one is void.
	SKU string `json:",omitempty"`
	// Image is the container image to run in, by an id or a digest, for
	// executors that use one. Others have the machine's own programs.
	Image string
	// Alias gives paths of Writable or ReadOnly a further name inside of the
	// image, which is the map's key.
	Alias map[string]string
	// Shards makes the attempt one of several pods, each with model servers; nil is
	// one command. Executors that are no [Sharder] refuse it.
	Shards *Shards `json:",omitempty"`
	// Seed makes the attempt one of this program's own, which fills a cache and
	// reaches the hub for that; nil is a command.
	Seed *Seed `json:",omitempty"`
	// NoSandbox runs untrusted code without isolation; the caller has recorded
	// that the user asked for it.
	NoSandbox bool
}

// Network says what the command may reach.
type Network struct {
	// Hosts are the only "host:port" pairs that may be reached, through a
	// proxy announced in the command's environment. Empty means no network.
	Hosts []string `json:"hosts,omitempty"`
}

// Limits bound one attempt; zero fields take the executor's defaults.
type Limits struct {
	Wall        time.Duration `json:"wall,omitempty"`
	OutputBytes int64         `json:"output_bytes,omitempty"` // stdout and stderr together
	MemoryBytes int64         `json:"memory_bytes,omitempty"`
	Processes   int           `json:"processes,omitempty"`
	FileBytes   int64         `json:"file_bytes,omitempty"` // largest single file
	DiskBytes   int64         `json:"disk_bytes,omitempty"` // growth of the writable folders together, where the executor can hold it
}

// Phase is where an attempt stands.
type Phase string

// The phases of an attempt. Succeeded, Failed and Cancelled are final.
const (
	Pending   Phase = "pending"
	Running   Phase = "running"
	Succeeded Phase = "succeeded"
	Failed    Phase = "failed"
	Cancelled Phase = "cancelled"
	// Unknown means that the attempt existed and cannot be seen; it is never
	// a reason to start it again by itself.
	Unknown Phase = "unknown"
)

// Final reports whether the phase can no longer change.
func (p Phase) Final() bool { return p == Succeeded || p == Failed || p == Cancelled }

// Reason is a stable word for why an attempt is in its phase.
type Reason string

// The reasons every executor uses; an executor may add its own for Pending.
const (
	ReasonNone        Reason = ""
	ReasonExit        Reason = "exit"           // the command ended with a non-zero code
	ReasonTimeout     Reason = "timeout"        // Limits.Wall
	ReasonOutputLimit Reason = "output_limit"   // Limits.OutputBytes
	ReasonResource    Reason = "resource_limit" // memory, processes or file size
	ReasonSignal      Reason = "signal"         // the command was killed from outside
	ReasonStart       Reason = "start"          // the command could not be started
	ReasonLost        Reason = "lost"           // the worker died without a word; safe to try again
	ReasonCancelled   Reason = "cancelled"
	ReasonWrongSKU    Reason = "wrong_sku" // another GPU model than Attempt.SKU: nothing that it gave counts
)

// Status is what Observe sees.
type Status struct {
	Phase     Phase     `json:"phase"`
	Reason    Reason    `json:"reason,omitempty"`
	Detail    string    `json:"detail,omitempty"`  // the executor's own word for where it stands within that; another one is news
	Message   string    `json:"message,omitempty"` // for people; says what to do next where there is something to do
	Since     time.Time `json:"since"`
	ExitCode  int       `json:"exit_code"`
	Started   time.Time `json:"started,omitzero"`
	Finished  time.Time `json:"finished,omitzero"`
	Placement Placement `json:"placement,omitzero"`
	Stdout    string    `json:"stdout,omitempty"` // path of the captured stream, where it is on this machine
	Stderr    string    `json:"stderr,omitempty"`
	Usage     Usage     `json:"usage,omitzero"`
}

// Usage is what the attempt consumed, measured.
type Usage struct {
	CPUSeconds  float64 `json:"cpu_seconds,omitempty"`
	MaxRSSBytes int64   `json:"max_rss_bytes,omitempty"`
	OutputBytes int64   `json:"output_bytes,omitempty"`
	WallSeconds float64 `json:"wall_seconds,omitempty"`
	GPUHours    float64 `json:"gpu_hours,omitempty"`
}

// Placement is where the attempt ran and under what isolation.
type Placement struct {
	Node    string   `json:"node,omitempty"`
	SKU     string   `json:"sku,omitempty"`     // an id of estimators/sku, "cpu" without a GPU
	Sandbox []string `json:"sandbox,omitempty"` // layers in force: "userns","netns","pidns","mountns","landlock","cgroup","uid","rlimit"; or "none"
	Missing []string `json:"missing,omitempty"` // what the layers in force do not cover, in words

	// What only a cluster tells.
	Flavor    string   `json:"flavor,omitempty"`    // the ResourceFlavor that the attempt was given
	Product   string   `json:"product,omitempty"`   // the GPU model as the node's label says it
	GPUUUIDs  []string `json:"gpu_uuids,omitempty"` // as NVIDIA's driver names them
	Driver    string   `json:"driver,omitempty"`    // version of NVIDIA's kernel module
	Evictions int      `json:"evictions,omitempty"` // how often the attempt had to begin anew
}
