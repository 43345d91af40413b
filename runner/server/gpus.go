package server

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// GPU is a GPU of this machine as nvidia-smi tells of it.
type GPU struct {
	Index     int    `json:"index"` // in the order of the PCI bus
	UUID      string `json:"uuid"`
	Name      string `json:"name"`
	TotalMiB  int64  `json:"total_mib"`
	UsedMiB   int64  `json:"used_mib"`
	Driver    string `json:"driver"`
	MIG       bool   `json:"mig,omitempty"`
	Processes []int  `json:"processes,omitempty"` // that compute on it
}

// idleMiB is how much memory of a GPU may be in use by a driver and a desktop
// alone.
const idleMiB = 1024

// Busy says why a GPU is not taken, "" if it is free.
func (g GPU) Busy() string {
	switch {
	case g.MIG:
		return "it is divided by MIG"
	case len(g.Processes) > 0:
		return fmt.Sprintf("process %d computes on it", g.Processes[0])
	case g.UsedMiB > idleMiB:
		return fmt.Sprintf("%d MiB of it are in use", g.UsedMiB)
	}
	return ""
}

const (
	gpuQuery = "--query-gpu=index,uuid,name,memory.total,memory.used,driver_version,mig.mode.current"
	appQuery = "--query-compute-apps=gpu_uuid,pid"
	smiFmt   = "--format=csv,noheader,nounits"
)

// GPUs asks nvidia-smi for the GPUs of this machine. The error wraps
// [exec.ErrNotFound] where there is no nvidia-smi.
func GPUs(ctx context.Context, smi string) ([]GPU, error) {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	ask := func(query string) ([]byte, error) {
		out, err := exec.CommandContext(ctx, smi, query, smiFmt).Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, oneLine(string(append(out, exit.Stderr...))))
		}
		return out, err
	}
	list, err := ask(gpuQuery)
	if err != nil {
		return nil, fmt.Errorf("list GPUs: %w", err)
	}
	apps, err := ask(appQuery)
	if err != nil {
		return nil, fmt.Errorf("list processes on GPUs: %w", err)
	}
	return parseGPUs(list, apps)
}

// parseGPUs reads the answers to the two queries.
func parseGPUs(list, apps []byte) (out []GPU, err error) {
	rows, err := readCSV(list, 7)
	if err != nil {
		return nil, fmt.Errorf("read list of GPUs: %w", err)
	}
	at := map[string]int{}
	for _, r := range rows {
		g := GPU{UUID: r[1], Name: r[2], Driver: r[5], MIG: r[6] == "Enabled"}
		if g.Index, err = strconv.Atoi(r[0]); err != nil {
			return nil, fmt.Errorf("read list of GPUs: %q is no index", clip(r[0]))
		}
		// Where memory is shared with the processor it is "[N/A]".
		g.TotalMiB, _ = strconv.ParseInt(r[3], 10, 64)
		g.UsedMiB, _ = strconv.ParseInt(r[4], 10, 64)
		at[g.UUID] = len(out)
		out = append(out, g)
	}
	rows, err = readCSV(apps, 2)
	if err != nil {
		return nil, fmt.Errorf("read processes on GPUs: %w", err)
	}
	for _, r := range rows {
		pid, err := strconv.Atoi(r[1])
		if i, ok := at[r[0]]; ok && err == nil {
			out[i].Processes = append(out[i].Processes, pid)
		}
	}
	return out, nil
}

func readCSV(b []byte, fields int) ([][]string, error) {
	r := csv.NewReader(bytes.NewReader(b))
	r.TrimLeadingSpace, r.FieldsPerRecord, r.LazyQuotes = true, -1, true
	var out [][]string
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(row) < fields { // "No devices were found", or a notice
			continue
		}
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		out = append(out, row)
	}
}

// lease is the GPUs that a server holds against other servers of ours.
type lease struct {
	gpus  []GPU
	locks []*os.File
}

func (l *lease) release() {
	if l == nil {
		return
	}
	for _, f := range l.locks {
		f.Close()
	}
	l.locks = nil
}

// visible is what makes a process see these GPUs and no others. Indices are
// given, as not every version of every engine understands UUIDs there.
func (l *lease) visible() map[string]string {
	if l == nil || len(l.gpus) == 0 {
		return nil
	}
	ids := make([]string, len(l.gpus))
	for i, g := range l.gpus {
		ids[i] = strconv.Itoa(g.Index)
	}
	return map[string]string{"CUDA_VISIBLE_DEVICES": strings.Join(ids, ","), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
}

func (l *lease) uuids() (out []string) {
	if l != nil {
		for _, g := range l.gpus {
			out = append(out, g.UUID)
		}
	}
	return out
}

// freeing is how long the driver may take to give back the memory of a server
// that has ended.
const freeing = 15 * time.Second

// take leases n free GPUs of one model. GPUs that a server of ours has just left
// are waited for.
func (h *Host) take(ctx context.Context, arm string, n int) (*lease, error) {
	if n <= 0 {
		return nil, nil
	}
	for {
		l, err := h.takeNow(ctx, arm, n)
		if err == nil || h.cfg.Now().Sub(h.lastFreed()) > freeing {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (h *Host) lastFreed() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.freed
}

// free gives a lease back.
func (h *Host) free(l *lease) {
	if l == nil {
		return
	}
	l.release()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.freed = h.cfg.Now()
}

func (h *Host) takeNow(ctx context.Context, arm string, n int) (*lease, error) {
	all, err := GPUs(ctx, h.cfg.SMI)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return nil, &UserError{fmt.Sprintf("arm %s needs %d GPUs, and there is no nvidia-smi here to tell which are free", arm, n),
			fmt.Sprintf("serve it on a machine with NVIDIA GPUs and give --endpoint %s=URL, or serve it without GPUs by a command: --server '%s=COMMAND {model} --port {port}'", arm, arm)}
	}
	if err != nil {
		return nil, &UserError{fmt.Sprintf("arm %s needs %d GPUs, and nvidia-smi does not answer: %v", arm, n, err), "mend the driver; `nvidia-smi` by itself should list the GPUs"}
	}
	l := &lease{}
	var busy []string
	for _, g := range allowedGPUs(all, h.getenv("CUDA_VISIBLE_DEVICES")) {
		if len(l.gpus) == n {
			break
		}
		if len(l.gpus) > 0 && g.Name != l.gpus[0].Name {
			continue
		}
		why := g.Busy()
		if why == "" {
			f, err := h.lockGPU(g.UUID)
			if err != nil {
				l.release()
				return nil, err
			}
			if f != nil {
				l.gpus, l.locks = append(l.gpus, g), append(l.locks, f)
				continue
			}
			why = "another server of ours holds it"
		}
		busy = append(busy, fmt.Sprintf("GPU %d (%s): %s", g.Index, g.Name, why))
	}
	if len(l.gpus) == n {
		return l, nil
	}
	free := len(l.gpus)
	l.release()
	msg := fmt.Sprintf("arm %s needs %d GPUs at once, and %d of %d are free", arm, n, free, len(all))
	if len(busy) > 0 {
		msg += "; " + strings.Join(busy, "; ")
	}
	return nil, &UserError{msg, fmt.Sprintf("free some, lower the arm's tensor parallelism, or serve it elsewhere and give --endpoint %s=URL", arm)}
}

// lockGPU takes a GPU's lock, nil if somebody else has it.
func (h *Host) lockGPU(uuid string) (*os.File, error) {
	dir := filepath.Join(h.cfg.Dir, "gpus")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lock GPU: %w", err)
	}
	return tryLock(filepath.Join(dir, safe(uuid)+".lock"))
}

// tryLock opens a file and locks it, nil if another process holds it. Closing
// the file gives it back.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("take lock: %w", err)
}

// allowedGPUs are those that the caller's own environment leaves, in its order.
func allowedGPUs(all []GPU, visible string) []GPU {
	if visible == "" {
		return all
	}
	var out []GPU
	for id := range strings.SplitSeq(visible, ",") {
		id = strings.TrimSpace(id)
		i := slices.IndexFunc(all, func(g GPU) bool {
			return id != "" && (strconv.Itoa(g.Index) == id || strings.HasPrefix(g.UUID, id))
		})
		if i < 0 {
			break // as CUDA does: what follows an unknown device is not seen
		}
		out = append(out, all[i])
	}
	return out
}
