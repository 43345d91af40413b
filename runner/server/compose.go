package server

import (
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// Command is how the server of an arm is started where this program does not do
// it itself, as in a pod.
type Command struct {
	Engine string            // vllm, sglang, …; "" is not known
	Image  string            // "" leaves it to whoever starts it
	Argv   []string          // arguments of the image's own entry point where the first is a flag
	Env    map[string]string // beside whatever else it gets
	GPUs   int
}

// Compose makes the command of an arm that is to listen on a port: how is vllm,
// sglang, docker:IMAGE or a command template. Its error is a [*UserError].
func Compose(how string, arm spec.Arm, host string, port int) (Command, error) {
	c, err := compose(how, arm, place{host, port})
	if err != nil {
		return Command{}, err
	}
	image := c.image
	if image == "" {
		image = strings.TrimPrefix(arm.Image, dockerPrefix)
	}
	return Command{Engine: c.engine, Image: image, Argv: c.argv, Env: c.env, GPUs: c.gpus}, nil
}
