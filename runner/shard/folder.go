// Package shard is a suite that is asked in blocks by the pods of one Job, or a
// turn of a throughput suite that is measured by one: the
// folder on the volume that submitter and pods share, and the client that runs
// in each pod beside the model servers.
//
//	suite.json              what is asked, in how many blocks, where the servers are; written once
//	stop                    no more blocks are needed, and why
//	log                     what the clients say
//	blocks/I/owner          the pod that has block I
//	blocks/I/pods/UID/      the answers of one pod, begun as a copy of those of the owner before it
//	blocks/I/trouble        why the last pod gave up
//	blocks/I/end.json       the block is complete; the first to link it in decides
//
// Each pod writes into a folder of its own. A pod that was cut off and goes on
// asking beside its successor spoils nothing, and one that follows asks nothing
// again that was answered.
package shard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/suites/throughput"
)

const (
	fileSuite   = "suite.json"
	fileStop    = "stop"
	fileLog     = "log"
	fileOwner   = "owner"
	fileTrouble = "trouble"
	fileEnd     = "end.json"
	dirBlocks   = "blocks"
	dirPods     = "pods"
)

// SeenFile is where the container of a turn's server leaves which GPUs it has, for
// the client beside it.
const SeenFile = "/run/repromill/gpus.json"

// Folder is the path of a suite's blocks on the volume.
type Folder string

// Suite is suite.json.
type Suite struct {
	Suite spec.Suite `json:"suite"`
	Of    int        `json:"of"` // blocks
	// Endpoints are the servers of the arms as the clients see them, by name.
	Endpoints map[string]string `json:"endpoints"`
	// Data is the hub's cache, in which the data sets of the suite are.
	Data string `json:"data"`
	// Turn makes the one block a turn of a throughput suite: it is measured as a whole
	// by one pod, beside one server.
	Turn *throughput.Turn `json:"turn,omitempty"`
	// Part makes the one block of the folder a part of the suite.
	Part *Part `json:"part,omitempty"`
	// Patience is how long a client waits for a server that is down; 0 is 30
	// minutes, as large models load slowly.
	Patience time.Duration `json:"patience,omitempty"`
}

// Part is a block of the suite's order that is asked of one arm.
type Part struct {
	Arm   string `json:"arm"`
	Index int    `json:"index"`
	Of    int    `json:"of"`
}

// End is end.json: what a pod says of a block that it completed. The answers
// themselves decide what counts.
type End struct {
	Pod      string    `json:"pod"`
	Node     string    `json:"node,omitempty"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	Answers  int       `json:"answers"`
	Requests int       `json:"requests"`
	Repeated int       `json:"repeated,omitempty"` // asked again, because a pod or a server ended in between
	Void     int       `json:"void,omitempty"`
	Restarts int       `json:"restarts,omitempty"` // of servers, seen by the clients
	Cells    int       `json:"cells,omitempty"`    // of a turn; Void are those of them
}

func (f Folder) path(name ...string) string {
	return filepath.Join(append([]string{string(f)}, name...)...)
}

func (f Folder) block(i int, name ...string) string {
	return f.path(append([]string{dirBlocks, strconv.Itoa(i)}, name...)...)
}

// Declare writes what is asked, or finds it written: a run that is taken up
// again goes on with the blocks that it began with, and gets them returned.
func (f Folder) Declare(s Suite) (Suite, error) {
	if err := os.MkdirAll(string(f), 0o755); err != nil {
		return s, fmt.Errorf("make folder of suite: %w", err)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return s, fmt.Errorf("encode suite: %w", err)
	}
	if err := atomicfile.Once(f.path(fileSuite), append(b, '\n'), 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
		return s, err
	}
	for i := range s.Of {
		if err := os.MkdirAll(f.block(i), 0o755); err != nil {
			return s, fmt.Errorf("make folder of block: %w", err)
		}
	}
	return f.Declared()
}

// Declared reads what is asked.
func (f Folder) Declared() (s Suite, err error) {
	return s, readJSON(f.path(fileSuite), &s)
}

// Stop says that no more blocks are needed; the first reason holds.
func (f Folder) Stop(why string) error {
	if err := atomicfile.Once(f.path(fileStop), []byte(why), 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Stopped is why no more blocks are needed, "" while they are.
func (f Folder) Stopped() string { return f.text(f.path(fileStop)) }

// Trouble is why the last pod of a block gave up, "" if none did.
func (f Folder) Trouble(i int) string { return f.text(f.block(i, fileTrouble)) }

func (f Folder) text(name string) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Log is the path of what the clients say.
func (f Folder) Log() string { return f.path(fileLog) }

// End reads how a block ended; ok is false while it has not.
func (f Folder) End(i int) (e End, ok bool, err error) {
	err = readJSON(f.block(i, fileEnd), &e)
	if errors.Is(err, fs.ErrNotExist) {
		return e, false, nil
	}
	return e, err == nil, err
}

// Ends are the blocks that are complete, of the first n.
func (f Folder) Ends(n int) (map[int]End, error) {
	out := map[int]End{}
	for i := range n {
		e, ok, err := f.End(i)
		if err != nil {
			return nil, fmt.Errorf("read block %d: %w", i, err)
		}
		if ok {
			out[i] = e
		}
	}
	return out, nil
}

// Answers are the folders of answers of the first n blocks, in their order:
// whole blocks only, or as well what there is of those that were not completed.
func (f Folder) Answers(n int, parts bool) (out []string, err error) {
	for i := range n {
		e, ok, err := f.End(i)
		if err != nil {
			return nil, fmt.Errorf("read block %d: %w", i, err)
		}
		pod := e.Pod
		if !ok && parts {
			pod = f.text(f.block(i, fileOwner))
		}
		if pod == "" {
			continue
		}
		dir := f.block(i, dirPods, pod)
		if _, err := os.Stat(filepath.Join(dir, "declared.json")); err != nil && !ok {
			continue // nothing was asked
		}
		out = append(out, dir)
	}
	return out, nil
}

func readJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(name), err)
	}
	return nil
}

// Measured is the folder of what the pod that completed a turn measured, and how
// many pods had begun it before.
func (f Folder) Measured() (dir string, lost int, err error) {
	e, ok, err := f.End(0)
	if err != nil || !ok {
		return "", 0, errors.Join(err, fmt.Errorf("the turn in %s is not complete", string(f)))
	}
	pods, err := os.ReadDir(f.block(0, dirPods))
	if err != nil {
		return "", 0, fmt.Errorf("read turn: %w", err)
	}
	for _, p := range pods {
		if p.Name() != e.Pod && !strings.HasSuffix(p.Name(), ".tmp") {
			lost++
		}
	}
	return f.block(0, dirPods, e.Pod), lost, nil
}

// take gives a block to a pod: its folder of answers is made first, from that of
// the owner before, so that no answer is lost on the way. Where a block is begun
// anew by every pod the folder is empty.
func (f Folder) take(i int, pod string, anew bool) (answers string, err error) {
	to := f.block(i, dirPods, pod)
	if _, err := os.Stat(to); err == nil {
		return to, f.own(i, pod)
	}
	tmp := to + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("take block: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return "", fmt.Errorf("take block: %w", err)
	}
	if before := f.text(f.block(i, fileOwner)); before != "" && !anew {
		if err := copyAnswers(f.block(i, dirPods, before), tmp); err != nil {
			return "", fmt.Errorf("take block over from pod %s: %w", before, err)
		}
	}
	if err := atomicfile.Rename(tmp, to, atomicfile.Options{}); err != nil {
		return "", fmt.Errorf("take block: %w", err)
	}
	return to, f.own(i, pod)
}

func (f Folder) own(i int, pod string) error {
	return atomicfile.Write(f.block(i, fileOwner), []byte(pod), atomicfile.Options{})
}

// owns reports whether no other pod has taken the block over; what cannot be read
// says nothing.
func (f Folder) owns(i int, pod string) bool {
	b, err := os.ReadFile(f.block(i, fileOwner))
	return err != nil || string(b) == pod
}
