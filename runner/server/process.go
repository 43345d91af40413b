package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/repromill/repromill/planner/spec"
)

// process is one start of a server, under its supervisor.
type process struct {
	command *command
	log     string
	from    int64 // where in the log this start begins
	began   time.Time
	grace   time.Duration
	token   string
	record  *os.File
	is      record // what the file holds
	hook    func(string)

	control io.Closer
	cmd     *exec.Cmd
	started chan error    // nil when it runs
	gone    chan struct{} // closed when the supervisor is gone and nothing is left
	how     string        // in which it ended; set before gone is closed
	once    sync.Once
}

// launch starts a command under a supervisor and returns when it runs.
func (h *Host) launch(arm spec.Arm, c *command, l *lease, log string) (*process, error) {
	p := &process{command: c, log: log, grace: h.cfg.Grace, token: token(), hook: h.cfg.Hook, began: h.cfg.Now(), started: make(chan error, 1), gone: make(chan struct{})}
	o := order{Argv: c.argv, Dir: "/", Log: log, Grace: h.cfg.Grace, Env: environ(h.cfg.Environ, l.visible(), c.env, map[string]string{marker: p.token})}
	if wd := h.getenv("PWD"); isDir(wd) {
		o.Dir = wd // where relative names of the user's command mean something
	}
	rec := record{Token: p.token, Arm: arm.Name, Began: p.began}
	if c.image != "" {
		h.inContainer(&o, &rec, arm, c, l)
	} else {
		path, err := h.cfg.LookPath(c.argv[0])
		if err != nil {
			return nil, h.noProgram(arm, c, err)
		}
		o.Argv = append([]string{path}, c.argv[1:]...)
	}
	if st, err := os.Stat(log); err == nil {
		p.from = st.Size()
	}
	if err := p.keep(h.cfg.Dir, rec); err != nil {
		return nil, err
	}
	h.cfg.Hook("server:start:before")
	if err := p.spawn(h.cfg.Self, o); err != nil {
		p.forget()
		return nil, fmt.Errorf("start supervisor of arm %s: %w", arm.Name, err)
	}
	if err := <-p.started; err != nil {
		<-p.gone
		if c.image != "" {
			return nil, &UserError{fmt.Sprintf("the container of arm %s cannot be started: %v", arm.Name, err), "see `repromill doctor`; pull the image beforehand: docker pull " + c.image}
		}
		return nil, h.noProgram(arm, c, err)
	}
	h.cfg.Hook("server:start:after")
	return p, nil
}

func (h *Host) noProgram(arm spec.Arm, c *command, err error) error {
	fix := fmt.Sprintf("install it, or name it by its path: --server '%s=PATH … {port}'", arm.Name)
	switch c.argv[0] {
	case "vllm":
		fix = "install it (pip install vllm), activate its environment, or name it by its path: --server '/venv/bin/vllm serve {model} --port {port} {flags}'"
	case "python3":
		fix = "activate the environment that has SGLang, or name its Python by the path: --server '/venv/bin/python -m sglang.launch_server --model-path {model} --port {port} {flags}'"
	}
	return &UserError{fmt.Sprintf("the server of arm %s cannot be started: %s: %v", arm.Name, c.argv[0], err), fix}
}

// keep writes the record of a server and locks it.
func (p *process) keep(dir string, rec record) error {
	path := filepath.Join(dir, p.token+recordSuffix)
	f, err := tryLock(path)
	if err != nil {
		return err
	}
	if f == nil { // nobody else knows the name
		return fmt.Errorf("lock record of server %s: it is locked", path)
	}
	b, err := json.Marshal(rec)
	if err == nil {
		p.hook("server:record:before")
		_, err = f.Write(append(b, '\n'))
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("write record of server: %w", err)
	}
	p.hook("server:record:after")
	p.record, p.is = f, rec
	return nil
}

// forget removes the record when nothing is left.
func (p *process) forget() {
	_ = os.Remove(p.record.Name()) // one that stays is swept later
	p.record.Close()
}

// spawn starts the supervisor.
func (p *process) spawn(self []string, o order) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	controlR, controlW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer controlR.Close()
	reportR, reportW, err := os.Pipe()
	if err != nil {
		controlW.Close()
		return err
	}
	defer reportW.Close()
	p.cmd = exec.Command(self[0], self[1:]...)
	p.cmd.Env, p.cmd.Dir = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}, "/"
	var complaint strings.Builder
	p.cmd.Stderr = &complaint
	p.cmd.ExtraFiles = []*os.File{controlR, reportW, p.record}
	// A session of its own: Ctrl-C at the terminal is for the parent, which then
	// stops the server in good order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		controlW.Close()
		reportR.Close()
		return err
	}
	p.control = controlW
	go p.listen(reportR, &complaint)
	if _, err := controlW.Write(append(text, '\n')); err != nil {
		controlW.Close()
		<-p.gone
		return fmt.Errorf("it ended before it began: %s", p.how)
	}
	return nil
}

// listen follows the supervisor's reports to its end, and clears up after it.
func (p *process) listen(r *os.File, complaint *strings.Builder) {
	defer r.Close()
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	up := false
	var last said
	for sc.Scan() {
		if json.Unmarshal(sc.Bytes(), &last) != nil {
			continue
		}
		if last.PID > 0 && !up {
			up = true
			p.started <- nil
		}
	}
	_ = p.cmd.Wait() // how it ended matters only when it said nothing
	p.how = last.How
	switch {
	case last.Error != "":
		p.how = last.Error
	case !last.Ended:
		p.how = strings.TrimSpace("its supervisor was killed " + complaint.String())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if p.is.clear(ctx) == nil {
		p.forget()
	} else {
		p.record.Close() // the next sweep tries again
	}
	if !up {
		p.started <- errors.New(p.how)
	}
	close(p.gone)
}

// ended reports whether the process is no more, and how it ended.
func (p *process) ended() (string, bool) {
	select {
	case <-p.gone:
		return p.how, true
	default:
		return "", false
	}
}

// stop ends the process and returns when nothing is left of it.
func (p *process) stop() error {
	p.once.Do(func() {
		p.hook("server:stop:before")
		p.control.Close()
	})
	// The supervisor forces the end after the grace, and sweeps for up to a while.
	select {
	case <-p.gone:
		p.hook("server:stop:after")
		return nil
	case <-time.After(p.grace + time.Minute):
	}
	_ = p.cmd.Process.Kill() // its server dies with it, and the rest is swept
	select {
	case <-p.gone:
		return nil
	case <-time.After(time.Minute):
		return fmt.Errorf("stop server: process %d does not end; it may hang in the driver", p.cmd.Process.Pid)
	}
}

// await returns when the server answers as a healthy one does.
func (h *Host) await(ctx context.Context, arm string, c *command, p *process, at place, began time.Time) error {
	limit := time.NewTimer(h.cfg.Healthy)
	defer limit.Stop()
	root := fmt.Sprintf("http://%s:%d", at.host, at.port)
	for wait := 100 * time.Millisecond; ; wait = min(wait*3/2, time.Second) {
		healthy, why := h.healthy(ctx, arm, root)
		how, over := p.ended()
		switch {
		case over:
			return startError(arm, c, p.log, p.from, fmt.Sprintf("ended after %s, before it was healthy (%s)", seconds(h.cfg.Now().Sub(began)), how))
		case healthy:
			return nil
		}
		h.cfg.Progress(arm, fmt.Sprintf("%s; %s", why, lastLine(p.log)))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.gone:
		case <-limit.C:
			e := startError(arm, c, p.log, p.from, fmt.Sprintf("did not become healthy within %s (%s)", h.cfg.Healthy, why))
			if e.Cause == "" {
				e.Fix = "give it more time with server.healthy in the configuration, or read its log for what it waits for"
			}
			return e
		case <-time.After(wait):
		}
	}
}

// healthy asks a server whether it can take requests. vLLM listens only when it
// can; SGLang, llama.cpp and TGI listen before that and say 503 at /health. Where
// /health is well nothing else is asked: the list of models fails on servers that
// work. A server without /health is healthy when it lists its models.
func (h *Host) healthy(ctx context.Context, arm, root string) (ok bool, why string) {
	health, err := h.status(ctx, arm, root+"/health")
	switch {
	case err != nil:
		return false, "it does not listen yet"
	case health == http.StatusOK:
		return true, ""
	case health >= 500:
		return false, fmt.Sprintf("/health says %d", health)
	}
	models, err := h.status(ctx, arm, root+"/v1/models")
	switch {
	case err != nil:
		return false, "/v1/models does not answer"
	case models == http.StatusOK, models == http.StatusUnauthorized, models == http.StatusForbidden:
		return true, "" // a key that is refused is said by the first request, with the fix
	}
	return false, fmt.Sprintf("/health says %d, and /v1/models %d", health, models)
}

func (h *Host) status(ctx context.Context, arm, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	if key := h.cfg.Key(arm); key != "" {
		req.Header.Set("Authorization", "Bearer "+string(key))
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)) // the status tells
	return resp.StatusCode, nil
}

// lastLine is the end of a log, for a person who waits.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > 8<<10 {
		_, _ = f.Seek(-8<<10, io.SeekEnd)
	}
	last := ""
	_ = eachLine(f, func(s string) { last = readLine(s).text }) // what cannot be read is not shown
	return clip(last)
}
