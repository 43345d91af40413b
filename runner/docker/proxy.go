package docker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/repromill/repromill/runner/docker/supervisor"
	"github.com/repromill/repromill/runner/sandbox/proxy"
)

// leashTime is how long a proxy waits for its container to come up.
const leashTime = 3 * time.Minute

// startProxy starts the process that is the attempt's only way out. It lives
// for as long as the container holds the connection to its leash, and needs
// neither this process nor the engine.
func (e *Executor) startProxy(ctx context.Context, at attempt) error {
	if len(e.cfg.Proxy) == 0 {
		return errors.New("no command is configured for the proxy")
	}
	// A proxy of an interrupted submission would wait in vain for its time.
	for _, s := range []string{supervisor.ProxySocket, supervisor.LeashSocket} {
		if err := os.RemoveAll(at.Path(dirNet) + "/" + s); err != nil {
			return fmt.Errorf("start proxy: %w", err)
		}
	}
	log, err := os.OpenFile(at.Path("proxy.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start proxy: %w", err)
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start proxy: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(e.cfg.Proxy[0], append(append([]string{}, e.cfg.Proxy[1:]...), at.Dir)...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start proxy: %w", err)
	}
	go cmd.Wait() // it may outlive this process, and leaves no zombie if it does not
	ready := make(chan bool, 1)
	go func() {
		var b [1]byte
		n, _ := r.Read(b[:])
		ready <- n == 1
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case ok := <-ready:
		if ok {
			return nil
		}
	}
	text, _ := os.ReadFile(log.Name())
	return fmt.Errorf("start proxy: it ended at once: %s", strings.TrimSpace(string(text)))
}

// ProxyMain is the hidden command that [Config].Proxy names; args is the
// attempt's folder. Its result is the exit status.
func ProxyMain(args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "this command is started by repromill itself beside a container, and not by hand")
		return 2
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT)
	if err := serveProxy(attemptIn(args[0]), os.NewFile(3, "ready")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func serveProxy(at attempt, ready *os.File) error {
	var rec record
	if err := at.Read(fileAttempt, &rec); err != nil {
		return err
	}
	// The names of sockets are short (unix(7)) and state folders may be deep.
	if err := os.Chdir(at.Path(dirNet)); err != nil {
		return err
	}
	leash, err := listen(supervisor.LeashSocket)
	if err != nil {
		return err
	}
	defer leash.Close()
	way, err := listen(supervisor.ProxySocket)
	if err != nil {
		return err
	}
	log := &proxy.FileLog{Path: at.Path(fileNetwork), Now: time.Now}
	p := proxy.Serve(way, proxy.Config{Allow: rec.Attempt.Network.Hosts, AllowPrivate: rec.Private, Log: log.Add})
	defer p.Close()
	_, err = ready.Write([]byte{1})
	ready.Close()
	if err != nil {
		return nil // the submitter is gone before it started anything
	}
	c, err := held(leash)
	if err != nil {
		return err
	}
	defer c.Close()
	var b [1]byte
	for err == nil { // nothing is said: the read ends with the container
		_, err = c.Read(b[:])
	}
	return nil
}

// held waits for the container to take the leash. It gives up when the attempt
// was taken back before it started, and after some minutes.
func held(leash *net.UnixListener) (net.Conn, error) {
	for end := time.Now().Add(leashTime); ; {
		leash.SetDeadline(time.Now().Add(time.Second))
		c, err := leash.Accept()
		if err == nil {
			return c, nil
		}
		if _, gone := os.Lstat(supervisor.LeashSocket); gone != nil || time.Now().After(end) || !os.IsTimeout(err) {
			return nil, fmt.Errorf("wait for the container: %w", err)
		}
	}
}

func listen(name string) (*net.UnixListener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for the container: %w", err)
	}
	// The folder above is this user's alone; the container's user needs it open.
	if err := os.Chmod(name, 0o666); err != nil {
		l.Close()
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return l, nil
}
