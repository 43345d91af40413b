package shard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/harness"
	"github.com/repromill/repromill/suites/throughput"
)

// Exit statuses of a client, which a Job's pod failure policy knows.
const (
	ExitDone    = 0
	ExitRefused = 65 // the suite cannot be asked as it stands: no other pod can either
	ExitVoid    = 66 // the servers are other systems than those that answered before
	ExitAgain   = 75 // this pod could not do it, another one may
)

// Suites carries out a block; [*accuracy.Bench] does.
type Suites interface {
	Run(ctx context.Context, j accuracy.Job) (harness.Result, error)
}

// Turns measures a turn; [*throughput.Bench] does.
type Turns interface {
	Turn(ctx context.Context, j throughput.Job, t throughput.Turn) (throughput.Counts, error)
}

// Client is the main container of a pod. All fields but Node and Hook are needed.
type Client struct {
	Folder Folder
	Index  int
	// Pod names this pod among all that ever get the block; Node is the node's name.
	Pod, Node string
	Suites    Suites
	Turns     Turns
	// Seen is the file in which the server's container leaves which GPUs it has; ""
	// is none.
	Seen string
	Out  io.Writer
	Now  func() time.Time
	// Hook is called around every durable step, with points such as
	// "shard:end:before"; nil is none.
	Hook func(point string)
}

// Run asks the block to its end and returns the exit status. When ctx ends what
// was answered is kept for the pod that follows.
func (c Client) Run(ctx context.Context) (int, error) {
	if c.Hook == nil {
		c.Hook = func(string) {}
	}
	code, err := c.run(ctx)
	if err != nil {
		c.say("gave up: %v", err)
		_ = atomicfile.Write(c.Folder.block(c.Index, fileTrouble), []byte(err.Error()), atomicfile.Options{}) // the volume may be what is at fault
	}
	return code, err
}

func (c Client) run(ctx context.Context) (int, error) {
	if c.Pod == "" {
		return ExitRefused, errors.New("the pod has no name: its template has to pass POD_UID on")
	}
	s, err := c.Folder.Declared()
	if err != nil {
		return ExitAgain, err // the volume may not be there yet
	}
	if c.Index < 0 || c.Index >= s.Of {
		return ExitRefused, fmt.Errorf("there is no block %d of %d", c.Index, s.Of)
	}
	if _, done, err := c.Folder.End(c.Index); done || err != nil {
		return again(err), err
	}
	if why := c.Folder.Stopped(); why != "" {
		c.say("is not needed: %s", why)
		return ExitDone, nil
	}
	began := c.Now().UTC()
	c.Hook("shard:take:before")
	dir, err := c.Folder.take(c.Index, c.Pod, s.Turn != nil)
	if err != nil {
		return ExitAgain, err
	}
	c.Hook("shard:take:after")
	c.say("begins on %s", c.Node)
	if s.Turn != nil {
		return c.measure(ctx, s, dir, began)
	}
	res, err := c.ask(ctx, s, dir)
	if err != nil {
		return status(err), err
	}
	return c.conclude(res, began)
}

func again(err error) int {
	if err != nil {
		return ExitAgain
	}
	return ExitDone
}

// status says whether another pod may have more luck.
func status(err error) int {
	var void *harness.VoidError
	var user interface{ UserError() string }
	var server *endpoint.Error
	switch {
	case errors.As(err, &void):
		return ExitVoid
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &server) && !server.Fatal():
		return ExitAgain
	case errors.As(err, &user):
		return ExitRefused
	}
	return ExitAgain
}

// job is the block as the suites' own code takes it. What a run may spend is for
// its submitter to watch: a block knows nothing of the others.
func (c Client) job(s Suite, dir string) accuracy.Job {
	suite := s.Suite
	suite.Budget.Tokens, suite.Budget.USD = 0, 0
	j := accuracy.Job{Suite: suite, Serving: accuracy.Serving{Endpoints: s.Endpoints}, Dir: dir, Shard: harness.Shard{Index: c.Index, Of: s.Of}}
	if p := s.Part; p != nil {
		j.Only, j.Shard = p.Arm, harness.Shard{Index: p.Index, Of: p.Of}
	}
	return j
}

var errTaken = errors.New("another pod has taken the block over")

const defaultPatience = 30 * time.Minute

// ask asks what is left. A server that went down in the middle is started again by
// its kubelet, so the client waits for it, for as long as a start may take.
func (c Client) ask(parent context.Context, s Suite, dir string) (harness.Result, error) {
	ctx, stop := context.WithCancelCause(parent)
	defer stop(nil)
	patience := s.Patience
	if patience == 0 {
		patience = defaultPatience
	}
	var mu sync.Mutex
	var done, told int
	moved := c.Now()
	j := c.job(s, dir)
	j.Progress = func(p harness.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Done > done {
			done, moved = p.Done, c.Now()
		}
		if p.Total > 0 && 10*p.Done/p.Total > told {
			told = 10 * p.Done / p.Total
			c.say("%d of %d answers", p.Done, p.Total)
		}
		if !c.Folder.owns(c.Index, c.Pod) {
			stop(errTaken)
		}
	}
	for wait := time.Second; ; wait = min(2*wait, 15*time.Second) {
		res, err := c.Suites.Run(ctx, j)
		var down *endpoint.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &down) || !down.Down() {
			return res, err
		}
		mu.Lock()
		idle := c.Now().Sub(moved)
		mu.Unlock()
		if idle > patience {
			return res, fmt.Errorf("a server has been down for %s: %w", idle.Round(time.Second), err)
		}
		c.say("waits for a server: %v", err)
		select {
		case <-ctx.Done():
			return res, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// conclude commits the end of a block whose questions are all answered by all
// arms, and of no other. One block that is the whole may decide by itself.
func (c Client) conclude(res harness.Result, began time.Time) (int, error) {
	if want := res.Shard.Size(res.Questions) * res.Repeats; !res.Decided() && (res.Units != want || want == 0) {
		return ExitAgain, fmt.Errorf("%d of %d questions are answered by all arms, and the client knows of no more to ask", res.Units, want)
	}
	if !c.Folder.owns(c.Index, c.Pod) {
		return ExitAgain, errTaken
	}
	e := End{Pod: c.Pod, Node: c.Node, Began: began, Ended: c.Now().UTC(), Requests: res.Paid.Requests, Repeated: res.Paid.Repeated, Void: res.Paid.Void}
	for _, a := range res.Arms {
		e.Answers += a.Answers
	}
	for _, k := range res.Looks {
		if k.Change.Changed() && !k.Void {
			e.Restarts++
		}
	}
	if err := c.end(e); err != nil {
		return ExitAgain, err
	}
	c.say("is complete: %d answers, %d requests", e.Answers, e.Requests)
	return ExitDone, nil
}

// end links the block's end in, unless another pod has been first.
func (c Client) end(e End) error {
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return fmt.Errorf("encode end: %w", err)
	}
	c.Hook("shard:end:before")
	if err := atomicfile.Once(c.Folder.block(c.Index, fileEnd), append(b, '\n'), 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	c.Hook("shard:end:after")
	return nil
}

// say tells people what happens: on the pod's own output, and in the log that
// all clients share. Nobody may be listening; the answers are what counts.
func (c Client) say(format string, args ...any) {
	line := fmt.Sprintf("%s block %d ", c.Now().UTC().Format(time.TimeOnly), c.Index+1) + fmt.Sprintf(format, args...) + "\n"
	_, _ = io.WriteString(c.Out, line)
	f, err := os.OpenFile(c.Folder.Log(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	_, _ = f.WriteString(line)
	_ = f.Close()
}
