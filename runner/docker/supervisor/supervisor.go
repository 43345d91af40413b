// Package supervisor is the first process of an attempt's container: this
// program's own static binary, mounted read-only. It starts the command,
// captures its output, holds the limits that the engine does not, and writes
// how it ended, so that an attempt needs nobody outside while it runs: neither
// the program that submitted it nor the engine's connection to it.
//
// It has the command's own user id and no capability. What the command could
// do to it is only what it could do to itself: process 1 takes no signal from
// inside of its namespace but SIGTERM, cannot be traced, and what it wrote is
// read from outside as carefully as anything else that the command left.
package supervisor

import (
	"encoding/json"
	"time"
)

// The folder that holds everything of ours inside of a container, and the
// names in it.
const (
	Root     = "/.repromill"
	InitPath = Root + "/init"
	SpecPath = Root + "/spec.json"
	OutDir   = Root + "/out"
	HomeDir  = Root + "/home"
	NetDir   = Root + "/net"

	// ProxySocket and LeashSocket lie in NetDir. Whoever serves them ends when
	// the connection to the leash does.
	ProxySocket = "proxy.sock"
	LeashSocket = "leash.sock"

	// ExitFile lies in OutDir.
	ExitFile = "exit.json"
)

// Reserve is how many processes and threads the supervisor itself may have, and
// ReserveBytes how much memory it may use.
const (
	Reserve      = 40
	ReserveBytes = 64 << 20
)

// Spec is what a supervisor is told.
type Spec struct {
	Argv     []string          `json:"argv"`
	Dir      string            `json:"dir"`
	Env      map[string]string `json:"env,omitempty"` // added to the image's, PATH, HOME, TMPDIR and LANG
	Writable []string          `json:"writable,omitempty"`
	Proxy    bool              `json:"proxy,omitempty"` // NetDir holds the way out

	Wall        time.Duration `json:"wall"`
	OutputBytes int64         `json:"output_bytes"`
	FileBytes   int64         `json:"file_bytes,omitempty"`
	DiskBytes   int64         `json:"disk_bytes,omitempty"` // growth of Writable, the home and the output together
	Processes   int           `json:"processes,omitempty"`
}

// Cause is why the supervisor ended the command.
type Cause string

// The causes; None means that the command ended by itself.
const (
	None       Cause = ""
	Timeout    Cause = "timeout"
	Output     Cause = "output"
	Memory     Cause = "memory"
	Processes  Cause = "processes"
	FileSize   Cause = "file_size"
	Disk       Cause = "disk"
	DiskFull   Cause = "disk_full"
	Terminated Cause = "terminated" // the engine or the machine is going down
	LostProxy  Cause = "lost_proxy" // the way out is gone
)

// Exit is how the command ended. Untrusted code could have written it.
type Exit struct {
	Started     time.Time `json:"started,omitzero"`
	Finished    time.Time `json:"finished"`
	StartError  string    `json:"start_error,omitempty"`
	Code        int       `json:"code"`
	Signal      int       `json:"signal,omitempty"`
	Cause       Cause     `json:"cause,omitempty"`
	CPUSeconds  float64   `json:"cpu_seconds"`
	MaxRSSBytes int64     `json:"max_rss_bytes"`
	OutputBytes int64     `json:"output_bytes"`
	DiskBytes   int64     `json:"disk_bytes"` // by how much the folders grew
}

// DecodeExit reads what a supervisor wrote.
func DecodeExit(b []byte) (e Exit, err error) {
	err = json.Unmarshal(b, &e)
	return e, err
}
