// Read cases from standard input, one a line, and print `accepted` or `refused` for each. See test_docs_verifiers.py.
package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var fields []string
		for _, field := range strings.Split(lines.Text(), "\t") {
			text, err := base64.StdEncoding.DecodeString(field)
			if err != nil {
				panic(err)
			}
			fields = append(fields, string(text))
		}
		headers := http.Header{}
		for i := 3; i < len(fields); i += 2 {
			headers.Set(fields[i], fields[i+1])
		}
		now, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			panic(err)
		}
		if isValid(strings.Split(fields[0], " "), headers, []byte(fields[2]), time.Unix(now, 0)) {
			fmt.Println("accepted")
		} else {
			fmt.Println("refused")
		}
	}
}
