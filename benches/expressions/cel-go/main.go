// The side of the benchmark of expressions that is cel-go: reads workloads as JSON from standard input and prints a line for each, as
// the sides in Rust do. Messages are maps and lists of Go, made once; only Eval is measured, what it gives is not made a value of Go.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"syscall"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

type workload struct {
	Name    string
	Source  string
	Message any
}

// spent is the time that this process has spent on cores, the collector of garbage included.
func spent() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// measure gives nanoseconds of one evaluation: first a tenth of the time to warm up and to learn how many evaluations that takes.
func measure(limit time.Duration, evaluate func()) float64 {
	batch := 1
	var once time.Duration
	for {
		begun := spent()
		for range batch {
			evaluate()
		}
		if taken := spent() - begun; taken >= limit/10 {
			once = taken / time.Duration(batch)
			break
		}
		batch *= 2
	}
	count := max(int(limit/max(once, 1)), 1)
	begun := spent()
	for range count {
		evaluate()
	}
	return float64(spent()-begun) / float64(count)
}

// native gives whole numbers as int64, others as float64; all as float64 where doubles says so.
func native(value any, doubles bool) any {
	switch value := value.(type) {
	case json.Number:
		if whole, err := value.Int64(); err == nil && !doubles {
			return whole
		}
		number, err := value.Float64()
		if err != nil {
			log.Fatal(err)
		}
		return number
	case []any:
		for at := range value {
			value[at] = native(value[at], doubles)
		}
	case map[string]any:
		for name := range value {
			value[name] = native(value[name], doubles)
		}
	}
	return value
}

// sum is what cel-go does not have: the sum of a list of doubles.
func sum(list ref.Val) ref.Val {
	total := types.Double(0)
	for items := list.(traits.Lister).Iterator(); items.HasNext() == types.True; {
		number, ok := items.Next().(types.Double)
		if !ok {
			return types.NewErr("a list of doubles is needed")
		}
		total += number
	}
	return total
}

func result(value ref.Val) any {
	list, ok := value.(traits.Lister)
	if !ok {
		return value.Value()
	}
	made := []any{}
	for items := list.Iterator(); items.HasNext() == types.True; {
		made = append(made, items.Next().Value())
	}
	return made
}

func main() {
	var input struct {
		Milliseconds int
		Workloads    []workload
	}
	decoder := json.NewDecoder(os.Stdin)
	decoder.UseNumber()
	if err := decoder.Decode(&input); err != nil {
		log.Fatal(err)
	}
	environment, err := cel.NewEnv(
		cel.Variable("req", cel.MapType(cel.StringType, cel.DynType)),
		cel.Function("sum", cel.Overload("sum_list", []*cel.Type{cel.ListType(cel.DynType)}, cel.DoubleType, cel.UnaryBinding(sum))),
	)
	if err != nil {
		log.Fatal(err)
	}
	for _, workload := range input.Workloads {
		tree, issues := environment.Compile(workload.Source)
		if issues.Err() != nil {
			log.Fatal(issues.Err())
		}
		program, err := environment.Program(tree, cel.EvalOptions(cel.OptOptimize))
		if err != nil {
			log.Fatal(err)
		}
		// As there are no decimals, and kinds of numbers do not mix.
		doubles := strings.HasPrefix(workload.Source, "sum(")
		activation := map[string]any{"req": native(workload.Message, doubles)}
		var last ref.Val
		nanoseconds := measure(time.Duration(input.Milliseconds)*time.Millisecond, func() {
			value, _, err := program.Eval(activation)
			if err != nil {
				log.Fatal(err)
			}
			last = value
		})
		line, err := json.Marshal(map[string]any{"name": workload.Name, "nanoseconds": nanoseconds, "result": result(last)})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(line))
	}
}
