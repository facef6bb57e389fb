// Run an exported detector from C++ with OpenVINO, whose headers and libraries `pip install openvino` brings:
//
//   OV=$(python -c 'import openvino, pathlib; print(pathlib.Path(openvino.__file__).parent)')
//   g++ -O2 -std=c++17 detect.cpp -I$OV/include $OV/libs/libopenvino.so.* -Wl,-rpath,$OV/libs -o detect
//   ./detect mask_rcnn.onnx street.ppm
//
// The image is a PPM file (P6), resized by the caller as in training. A file for any size gets it padded to
// multiples of 32, a file of one size to that.

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <openvino/openvino.hpp>
#include <vector>

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: detect FILE IMAGE.ppm\n");
        return 1;
    }
    std::ifstream file(argv[2], std::ios::binary);
    std::string magic;
    size_t width = 0, height = 0, largest = 0;
    file >> magic >> width >> height >> largest;
    file.get();
    std::vector<unsigned char> pixels{std::istreambuf_iterator<char>(file), {}};
    if (magic != "P6" || largest != 255 || pixels.size() != 3 * width * height) {
        std::fprintf(stderr, "%s is no PPM file of 8 bits (P6)\n", argv[2]);
        return 1;
    }

    ov::Core core;
    // Left alone, OpenVINO computes in bfloat16 where the processor can.
    auto model = core.compile_model(argv[1], "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = model.create_infer_request();
    const ov::PartialShape sides = model.input("image").get_partial_shape();  // 1, 3, H, W
    auto padded = [](const ov::Dimension& side, size_t length) -> size_t {
        return side.is_static() ? side.get_length() : (length + 31) / 32 * 32;
    };
    const ov::Shape shape{1, 3, padded(sides[2], height), padded(sides[3], width)};
    if (height > shape[2] || width > shape[3]) {
        std::fprintf(stderr, "the file takes images of up to %zux%zu\n", shape[2], shape[3]);
        return 1;
    }
    // What is beside the image counts as padding; the network makes it zero.
    ov::Tensor image(ov::element::f32, shape), size(ov::element::f32, {2});
    float* out = image.data<float>();
    std::fill_n(out, image.get_size(), 0.0f);
    for (size_t c = 0; c < 3; ++c)
        for (size_t y = 0; y < height; ++y)
            for (size_t x = 0; x < width; ++x)
                out[(c * shape[2] + y) * shape[3] + x] = pixels[3 * (y * width + x) + c];
    size.data<float>()[0] = height;
    size.data<float>()[1] = width;
    request.set_tensor("image", image);
    request.set_tensor("size", size);
    request.infer();

    const float* boxes = request.get_tensor("boxes").data<float>();
    const float* scores = request.get_tensor("scores").data<float>();
    const int64_t* labels = request.get_tensor("labels").data<int64_t>();
    for (size_t i = 0; i < request.get_tensor("scores").get_size() && labels[i] >= 0; ++i)
        std::printf("%lld %.4f %.2f %.2f %.2f %.2f\n", static_cast<long long>(labels[i]), scores[i], boxes[4 * i],
                    boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]);
}
