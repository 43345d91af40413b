package executortest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// beatEvery is how often a program that hides shows that it is alive.
const beatEvery = 10 * time.Millisecond

// Main is the program of the suite. The binary that [Harness.Program] names
// calls it with the arguments behind those of Program; its result is the exit
// status.
func Main(args []string) int {
	programs := map[string]func([]string) error{
		"hello": hello, "flood": flood, "hide": hide, "beat": beat, "leave": leave, "bomb": bomb, "hog": hog, "bigfile": bigFile,
		"snoop": snoop, "dial": dial, "get": get, "trespass": trespass, "count": count, "talk": talk,
		"signal": func([]string) error { return syscall.Kill(os.Getpid(), syscall.SIGKILL) },
	}
	if len(args) == 2 && args[0] == "exit" {
		n, _ := strconv.Atoi(args[1])
		return n
	}
	if len(args) == 0 || programs[args[0]] == nil {
		fmt.Fprintf(os.Stderr, "no program %q\n", args)
		return 99
	}
	if err := programs[args[0]](args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// hello writes down what it sees.
func hello(args []string) error {
	var b bytes.Buffer
	for _, a := range args {
		fmt.Fprintf(&b, "arg %s\n", a)
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	fmt.Fprintf(&b, "cwd %s\n", wd)
	for _, e := range os.Environ() {
		fmt.Fprintf(&b, "env %s\n", e)
	}
	n, err := os.Stdin.Read(make([]byte, 1))
	fmt.Fprintf(&b, "stdin %d %v\n", n, err)
	if err := os.WriteFile("hello.txt", b.Bytes(), 0o644); err != nil {
		return err
	}
	for _, dir := range []string{os.TempDir(), os.Getenv("HOME")} {
		if err := os.WriteFile(filepath.Join(dir, "scratch"), nil, 0o644); err != nil {
			return err
		}
	}
	fmt.Println("to stdout")
	fmt.Fprintln(os.Stderr, "to stderr")
	return nil
}

func flood([]string) error {
	line := bytes.Repeat([]byte("flood "), 1000)
	for range 10000 {
		os.Stdout.Write(line)
		os.Stderr.Write(line)
	}
	return nil
}

// again starts this program once more, in a session of its own, and does not
// wait for it.
func again(args ...string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	// Whatever lies before the name of this program belongs to how it is called.
	i := slices.IndexFunc(os.Args, func(a string) bool { return slices.Contains([]string{"hide", "leave", "bomb"}, a) })
	if i < 0 {
		return fmt.Errorf("no program that starts another among %q", os.Args)
	}
	own := os.Args[1:i]
	cmd := exec.Command(exe, append(append([]string{}, own...), args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

// beatFor bounds the life of a program that nothing else ends.
const beatFor = 2 * time.Minute

// hide starts a process that hides in another session, and beats itself too.
func hide(args []string) error {
	if err := again("leave", args[0]); err != nil {
		return err
	}
	return beat(args)
}

func beat(args []string) error {
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for end := time.Now().Add(beatFor); time.Now().Before(end); time.Sleep(beatEvery) {
		if _, err := f.WriteString("."); err != nil {
			return err
		}
	}
	return nil
}

// leave starts a process that outlives it, and ends when that one beats.
func leave(args []string) error {
	if err := again("beat", args[0]); err != nil {
		return err
	}
	for range 500 {
		if b, err := os.ReadFile(args[0]); err == nil && len(b) > 0 {
			return nil
		}
		time.Sleep(beatEvery)
	}
	return errors.New("the other one never beat")
}

// Where a limit under test does not hold, the programs that grow stop by
// themselves before they hurt the machine.
const (
	bombTime  = 30 * time.Second // a limit is hit long before, on a busy machine too
	bombLives = 400
	hogBlocks = 128 // of 8 MiB
)

// bomb starts itself again and again for as long as it is let.
func bomb(args []string) error {
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	begin := time.Now()
	if st, err := os.Stat(args[1]); err == nil {
		begin = st.ModTime() // of the first one
	} else if err := os.WriteFile(args[1], nil, 0o644); err != nil {
		return err
	}
	for time.Since(begin) < bombTime {
		if _, err := f.WriteString("."); err != nil {
			return err
		}
		if info, err := f.Stat(); err == nil && info.Size() > bombLives {
			break
		}
		again("bomb", args[0], args[1])
		time.Sleep(beatEvery)
	}
	time.Sleep(bombTime) // and stay, so that the living add up
	return nil
}

func hog([]string) error {
	debug.SetGCPercent(-1)
	var kept [][]byte
	for {
		b := make([]byte, 8<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
		if len(kept) > hogBlocks {
			return errors.New("1 GiB was granted")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func bigFile(args []string) error {
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	for range 4096 {
		if _, err := f.Write(make([]byte, 64<<10)); err != nil {
			return err
		}
	}
	return nil
}

// snoop looks for a token in every place where it may not be. The arguments
// are the token without its first part, so that finding it means finding the
// original; the file that holds it; and the pid of a process that has it in
// its environment.
func snoop(args []string) error {
	token := "s3cr3t-" + args[0]
	leak := func(where string, b []byte) {
		if bytes.Contains(b, []byte(token)) || args[0] == "none" && bytes.Contains(b, []byte("s3cr3t")) {
			fmt.Println("LEAK through", where)
		}
	}
	leak("the environment", []byte(strings.Join(os.Environ(), "\n")))
	if b, err := os.ReadFile(args[1]); err == nil {
		leak("the file "+args[1], b)
	}
	// The submitter's neighbour by its pid out there, and what is around this process in
	// here. Other processes of the machine are nobody's business.
	for _, pid := range []string{args[2], "1", strconv.Itoa(os.Getppid())} {
		if b, err := os.ReadFile("/proc/" + pid + "/environ"); err == nil {
			leak("the environment of process "+pid, b)
		}
		if b, err := os.ReadFile("/proc/" + pid + "/root" + args[1]); err == nil {
			leak("the root of process "+pid, b)
		}
	}
	for fd := 3; fd < 256; fd++ {
		buf := make([]byte, 4096)
		if n, err := syscall.Pread(fd, buf, 0); err == nil {
			leak(fmt.Sprintf("descriptor %d", fd), buf[:n])
		}
	}
	for _, home := range []string{"/root", "/home", "/run/secrets", "/var/run/secrets"} {
		filepath.WalkDir(home, func(p string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				fmt.Println("LEAK: a file of somebody's home is seen:", p)
				return fs.SkipAll
			}
			return nil
		})
	}
	// That it opens is proof enough; nothing is read.
	for _, p := range []string{"/etc/shadow", "/proc/kcore", "/dev/mem"} {
		if f, err := os.Open(p); err == nil {
			f.Close()
			fmt.Println("LEAK:", p, "can be opened")
		}
	}
	if _, err := os.Stat("/var/run/docker.sock"); err == nil {
		if c, err := net.Dial("unix", "/var/run/docker.sock"); err == nil {
			c.Close()
			fmt.Println("LEAK: the Docker socket can be used")
		}
	}
	fmt.Println("snooped everywhere")
	return nil
}

// dial tries a TCP, a UDP and a metadata address, and a name.
func dial(args []string) error {
	if c, err := net.DialTimeout("tcp", args[0], 2*time.Second); err == nil {
		fmt.Println("REACHED tcp", args[0], c.RemoteAddr())
	}
	if c, err := net.DialTimeout("udp", args[1], 2*time.Second); err == nil {
		c.Write([]byte("hello")) // whether it arrives is seen on the other side
		c.Close()
	}
	if c, err := net.DialTimeout("tcp", args[2], 2*time.Second); err == nil {
		fmt.Println("REACHED tcp", args[2], c.RemoteAddr())
	}
	if a, err := net.LookupHost("example.com"); err == nil {
		fmt.Println("REACHED a name server", a)
	}
	return nil
}

// get asks for URLs through whatever proxy the environment names.
func get(args []string) error {
	proxy := os.Getenv("http_proxy")
	if proxy == "" || os.Getenv("HTTPS_PROXY") != proxy {
		return errors.New("no proxy is announced")
	}
	for _, url := range args {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(proxy, "http://"), 5*time.Second)
		if err != nil {
			return err
		}
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Close = true
		if err := req.WriteProxy(conn); err != nil {
			return err
		}
		b, err := io.ReadAll(conn)
		if err != nil {
			return err
		}
		conn.Close()
		_, rest, _ := strings.Cut(string(b), " ")
		status, _, _ := strings.Cut(rest, " ")
		fmt.Println(url, "status", status)
	}
	return nil
}

// trespass finds out what could be written, and changes nothing that anybody
// owns: it opens what exists without truncating or writing, and what it can
// make in a folder is an empty file with a name of its own, removed at once.
func trespass(paths []string) error {
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && string(b) == "data" {
			fmt.Println("data is readable")
		}
		st, err := os.Stat(p)
		if err != nil {
			fmt.Println(p, err)
			continue
		}
		flags, target := os.O_WRONLY, p
		if st.IsDir() {
			flags, target = os.O_WRONLY|os.O_CREATE|os.O_EXCL, filepath.Join(p, fmt.Sprintf(".repromill-conformance-%d", time.Now().UnixNano()))
		}
		f, err := os.OpenFile(target, flags, 0o600)
		if err != nil {
			fmt.Println(p, err)
			continue
		}
		f.Close()
		fmt.Println("TRESPASS", p)
		if st.IsDir() {
			os.Remove(target)
		}
	}
	return nil
}

// count notes that it started and waits for a file, unless that is "-".
func count(args []string) error {
	f, err := os.OpenFile(args[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("started\n"); err != nil {
		return err
	}
	if args[1] != "-" {
		return await(args[1])
	}
	return nil
}

func await(file string) error {
	for {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		time.Sleep(beatEvery)
	}
}

// talk prints one line on each stream, and waits for a file between them.
func talk(args []string) error {
	fmt.Println("first")
	if err := await(args[0]); err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "second")
	return nil
}

func asUserError(err error) (string, bool) {
	var u interface{ UserError() string }
	if errors.As(err, &u) {
		return u.UserError(), true
	}
	return "", false
}
