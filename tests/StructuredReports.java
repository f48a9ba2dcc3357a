import com.pixelmed.validate.DicomSRValidator;

/** PixelMed's DicomSRValidator on many files: starting it takes seconds, a file a fraction of one. */
public class StructuredReports {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String file : files) {
            System.out.println("\fFile " + file);
            System.out.println(validator.validate(file));
        }
    }
}
